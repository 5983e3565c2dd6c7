//! `ssl_ciphers`: OpenSSL's language of cipher lists, over the ciphers of TLSv1.2 that there are here.
//!
//! A list is made as OpenSSL makes it: all ciphers stand in a row, inactive; each rule moves those that it selects to the
//! end and activates them, deactivates them (`-`), removes them for good (`!`) or moves the active ones to the end (`+`).
//! What selects only ciphers that are not here (CBC, RSA key exchange, DHE) selects nothing, as in an OpenSSL that was
//! built without them.

use std::fmt;
use std::sync::Arc;

/// A cipher of TLSv1.2; the key exchange is always ECDHE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// `ECDHE-ECDSA-AES256-GCM-SHA384`
    EcdsaAes256,
    /// `ECDHE-RSA-AES256-GCM-SHA384`
    RsaAes256,
    /// `ECDHE-ECDSA-CHACHA20-POLY1305`
    EcdsaChacha20,
    /// `ECDHE-RSA-CHACHA20-POLY1305`
    RsaChacha20,
    /// `ECDHE-ECDSA-AES128-GCM-SHA256`
    EcdsaAes128,
    /// `ECDHE-RSA-AES128-GCM-SHA256`
    RsaAes128,
}

use Cipher as C;

/// In OpenSSL's own order, from which a list is made.
const ALL: [Cipher; 6] = [C::EcdsaAes256, C::RsaAes256, C::EcdsaChacha20, C::RsaChacha20, C::EcdsaAes128, C::RsaAes128];

impl Cipher {
    /// OpenSSL's name, which `$ssl_cipher` shows.
    pub fn name(self) -> &'static str {
        match self {
            C::EcdsaAes256 => "ECDHE-ECDSA-AES256-GCM-SHA384",
            C::RsaAes256 => "ECDHE-RSA-AES256-GCM-SHA384",
            C::EcdsaChacha20 => "ECDHE-ECDSA-CHACHA20-POLY1305",
            C::RsaChacha20 => "ECDHE-RSA-CHACHA20-POLY1305",
            C::EcdsaAes128 => "ECDHE-ECDSA-AES128-GCM-SHA256",
            C::RsaAes128 => "ECDHE-RSA-AES128-GCM-SHA256",
        }
    }

    /// Whether it goes with RSA certificates; the others go with ECDSA and EdDSA.
    pub fn rsa(self) -> bool {
        !self.ecdsa()
    }

    fn ecdsa(self) -> bool {
        matches!(self, C::EcdsaAes256 | C::EcdsaChacha20 | C::EcdsaAes128)
    }

    fn aes128(self) -> bool {
        matches!(self, C::EcdsaAes128 | C::RsaAes128)
    }

    fn aes256(self) -> bool {
        matches!(self, C::EcdsaAes256 | C::RsaAes256)
    }

    /// Whether a word of the language selects it.
    fn is(self, word: &str) -> bool {
        match word {
            "ALL" | "HIGH" | "TLSv1.2" | "ECDHE" | "EECDH" | "kECDHE" | "kEECDH" => true,
            "ECDSA" | "aECDSA" => self.ecdsa(),
            "aRSA" => !self.ecdsa(),
            "AES" | "AESGCM" | "FIPS" => self.aes128() || self.aes256(),
            "AES128" => self.aes128(),
            "AES256" => self.aes256(),
            "CHACHA20" => !self.aes128() && !self.aes256(),
            _ => word == self.name(),
        }
    }
}

/// Why a list cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InvalidList {
    /// A mark or an `@` word that there is not.
    Command,
    /// Nothing is left.
    Empty,
    /// `@SECLEVEL` above what the library keeps to by itself.
    Level,
}

impl fmt::Display for InvalidList {
    /// The first two in OpenSSL's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Command => "SSL: error:0A000118:SSL routines::invalid command)",
            Self::Empty => "SSL: error:0A0000B9:SSL routines::no cipher match)",
            Self::Level => "a @SECLEVEL above 2 is not supported)",
        })?;
        match self {
            Self::Empty => f.write_str(", supported are ECDHE with AESGCM and with CHACHA20"),
            _ => Ok(()),
        }
    }
}

/// nginx's `HIGH:!aNULL:!MD5`.
pub(super) fn default() -> Arc<[Cipher]> {
    ALL.into()
}

/// What is done with the ciphers that a rule selects.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    Add,
    Deactivate,
    Kill,
    Order,
}

/// The ciphers in a row, with whether they are active.
struct Row(Vec<(Cipher, bool)>);

impl Row {
    fn apply(&mut self, rule: Rule, selected: impl Fn(Cipher) -> bool) {
        let (mut taken, mut rest): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
        for (cipher, active) in self.0.drain(..) {
            let concerned = match rule {
                Rule::Add => !active,
                Rule::Deactivate | Rule::Order => active,
                Rule::Kill => true,
            };
            if concerned && selected(cipher) { taken.push((cipher, rule != Rule::Deactivate)) } else { rest.push((cipher, active)) }
        }
        self.0 = match rule {
            Rule::Kill => rest,
            Rule::Deactivate => [taken, rest].concat(),
            Rule::Add | Rule::Order => [rest, taken].concat(),
        };
    }

    fn sort_by_strength(&mut self) {
        self.apply(Rule::Order, |cipher| !cipher.aes128());
        self.apply(Rule::Order, Cipher::aes128);
    }
}

/// The ciphers of a list, the preferred one first.
pub(super) fn select(list: &str) -> Result<Vec<Cipher>, InvalidList> {
    let mut row = Row(ALL.map(|cipher| (cipher, false)).to_vec());
    let mut text = list;
    if let Some(rest) = text.strip_prefix("DEFAULT") {
        row.apply(Rule::Add, |_| true);
        text = rest;
    }
    for item in text.split([':', ' ', ';', ',']).filter(|item| !item.is_empty()) {
        let (rule, words) = match item.as_bytes()[0] {
            b'@' => {
                special(&mut row, &item[1..])?;
                continue;
            }
            b'-' => (Rule::Deactivate, &item[1..]),
            b'+' => (Rule::Order, &item[1..]),
            b'!' => (Rule::Kill, &item[1..]),
            _ => (Rule::Add, item),
        };
        let mut selected = Vec::new();
        let mut known = true;
        for word in words.split('+') {
            // What stands behind a strange mark or an unknown word is not read any more, as in OpenSSL.
            let end = word.find(|mark| !is_of_word(mark));
            let word = &word[..end.unwrap_or(word.len())];
            if word.is_empty() {
                return Err(InvalidList::Command);
            }
            known = ALL.iter().any(|cipher| cipher.is(word));
            if !known {
                break;
            }
            selected.push(word);
            if end.is_some() {
                break;
            }
        }
        if known {
            row.apply(rule, |cipher| selected.iter().all(|word| cipher.is(word)));
        }
    }
    let active: Vec<Cipher> = row.0.into_iter().filter(|(_, active)| *active).map(|(cipher, _)| cipher).collect();
    if active.is_empty() { Err(InvalidList::Empty) } else { Ok(active) }
}

fn is_of_word(mark: char) -> bool {
    mark.is_ascii_alphanumeric() || matches!(mark, '-' | '_' | '.' | '=')
}

fn special(row: &mut Row, word: &str) -> Result<(), InvalidList> {
    match word {
        "STRENGTH" => row.sort_by_strength(),
        // The library itself takes no RSA key below 2048 bits and no weaker cipher.
        "SECLEVEL=0" | "SECLEVEL=1" | "SECLEVEL=2" => {}
        "SECLEVEL=3" | "SECLEVEL=4" | "SECLEVEL=5" => return Err(InvalidList::Level),
        _ => return Err(InvalidList::Command),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_made_in_order() {
        let all = "ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-RSA-AES256-GCM-SHA384 ECDHE-ECDSA-CHACHA20-POLY1305 \
                   ECDHE-RSA-CHACHA20-POLY1305 ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-RSA-AES128-GCM-SHA256";
        let table: &[(&str, &str)] = &[
            ("HIGH:!aNULL:!MD5", all),
            ("DEFAULT", all),
            (
                "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:DHE-RSA-AES128-GCM-SHA256",
                "ECDHE-RSA-AES128-GCM-SHA256 ECDHE-RSA-AES256-GCM-SHA384",
            ),
            ("kEECDH+ECDSA+AES128", "ECDHE-ECDSA-AES128-GCM-SHA256"),
            ("EECDH+CHACHA20:!ECDSA", "ECDHE-RSA-CHACHA20-POLY1305"),
            ("AES128:AES256:@STRENGTH:!aRSA", "ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-ECDSA-AES128-GCM-SHA256"),
            ("aRSA+AES:+AES256", "ECDHE-RSA-AES128-GCM-SHA256 ECDHE-RSA-AES256-GCM-SHA384"),
        ];
        for (list, expected) in table {
            let got: Vec<&str> = select(list).unwrap().into_iter().map(Cipher::name).collect();
            assert_eq!(got.join(" "), *expected, "{list}");
        }
    }

    #[test]
    fn what_leaves_nothing_is_refused() {
        for (list, error) in [
            ("", InvalidList::Empty),
            ("AES128-SHA:DHE-RSA-AES128-GCM-SHA256", InvalidList::Empty),
            ("HIGH:!ALL", InvalidList::Empty),
            ("HIGH:@FOO", InvalidList::Command),
            ("HIGH:?", InvalidList::Command),
            ("HIGH:@SECLEVEL=4", InvalidList::Level),
        ] {
            assert_eq!(select(list), Err(error), "{list}");
        }
    }
}
