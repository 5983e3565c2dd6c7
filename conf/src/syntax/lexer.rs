//! The words and marks of the language, one at a time.
//!
//! The rules follow nginx's reader byte by byte: a bare word ends at blank, `;` or `{` (but not at a `{` behind `$`),
//! may hold `}`, quotes and `#` anywhere but at its start; a quoted word must be followed by a blank, `;`, `{` or `)`.
//!
//! Every byte of every vhost passes here at each start and in each update, so the loops run over classes of bytes, and
//! nothing looks at a word twice that holds no escape.

use std::borrow::Cow;

use nom::bytes::complete::{take, take_till, take_while};
use nom::{IResult, Parser};

/// What stands next in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A word, escapes not yet resolved.
    Word {
        /// Without its quotes.
        text: &'a [u8],
        /// Whether it stands in quotes.
        quoted: bool,
        /// Whether it holds a backslash.
        escaped: bool,
    },
    /// A quote that nothing closes, with all that follows it.
    Unclosed,
    /// `;`
    Semicolon,
    /// `{`
    Open,
    /// `}`
    Close,
}

const BLANK: u8 = 1;
/// Ends a run of ordinary bytes in a bare word.
const BARE_STOP: u8 = 2;

const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    class[b' ' as usize] = BLANK | BARE_STOP;
    class[b'\t' as usize] = BLANK | BARE_STOP;
    class[b'\r' as usize] = BLANK | BARE_STOP;
    class[b'\n' as usize] = BLANK | BARE_STOP;
    class[b';' as usize] = BARE_STOP;
    class[b'{' as usize] = BARE_STOP;
    class[b'\\' as usize] = BARE_STOP;
    class[b'$' as usize] = BARE_STOP;
    class
};

/// Whether a byte separates words.
pub(super) fn is_blank(byte: u8) -> bool {
    CLASS[byte as usize] & BLANK != 0
}

/// Blanks and comments; may be empty. Gives how many lines end in them.
pub(super) fn gap(mut input: &[u8]) -> IResult<&[u8], u32> {
    let mut lines = 0;
    loop {
        match input {
            [b'\n', rest @ ..] => {
                lines += 1;
                input = rest;
            }
            [byte, rest @ ..] if is_blank(*byte) => input = rest,
            [b'#', ..] => (input, _) = take_till(|byte| byte == b'\n').parse(input)?,
            _ => return Ok((input, lines)),
        }
    }
}

/// The next token; an error only at the end of the text. The caller has skipped the [`gap`].
pub(super) fn token(input: &[u8]) -> IResult<&[u8], Token<'_>> {
    match input {
        [b';', rest @ ..] => Ok((rest, Token::Semicolon)),
        [b'{', rest @ ..] => Ok((rest, Token::Open)),
        [b'}', rest @ ..] => Ok((rest, Token::Close)),
        [quote @ (b'"' | b'\''), rest @ ..] => quoted(*quote, rest),
        _ => bare(input),
    }
}

fn bare(input: &[u8]) -> IResult<&[u8], Token<'_>> {
    let mut rest = input;
    let mut escaped = false;
    loop {
        (rest, _) = take_while(|byte| CLASS[byte as usize] & BARE_STOP == 0).parse(rest)?;
        match rest.first() {
            // It takes the next byte with it, whatever it is; at the end of the file it stands alone.
            Some(b'\\') => {
                escaped = true;
                (rest, _) = take(rest.len().min(2)).parse(rest)?;
            }
            Some(b'$') => (rest, _) = take_while(|byte| byte == b'{').parse(&rest[1..])?,
            _ => break,
        }
    }
    let text = &input[..input.len() - rest.len()];
    if text.is_empty() {
        return Err(nom::Err::Error(nom::error::Error::new(input, nom::error::ErrorKind::Eof)));
    }
    Ok((rest, Token::Word { text, quoted: false, escaped }))
}

/// `input` stands behind the quote.
fn quoted(quote: u8, input: &[u8]) -> IResult<&[u8], Token<'_>> {
    let mut rest = input;
    let mut escaped = false;
    loop {
        (rest, _) = take_while(|byte| byte != quote && byte != b'\\').parse(rest)?;
        match rest {
            [b'\\', _, after @ ..] => {
                escaped = true;
                rest = after;
            }
            [b'\\'] | [] => return Ok((&[], Token::Unclosed)),
            [_, after @ ..] => {
                let text = &input[..input.len() - rest.len()];
                return Ok((after, Token::Word { text, quoted: true, escaped }));
            }
        }
    }
}

/// Resolves `\"`, `\'`, `\\`, `\t`, `\r` and `\n`; any other `\x` stays as it is.
pub(super) fn unescape(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'\\') {
        return Cow::Borrowed(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(&byte) = bytes.next() {
        let escaped = match (byte, bytes.as_slice().first()) {
            (b'\\', Some(&byte @ (b'"' | b'\'' | b'\\'))) => byte,
            (b'\\', Some(b't')) => b'\t',
            (b'\\', Some(b'r')) => b'\r',
            (b'\\', Some(b'n')) => b'\n',
            _ => {
                out.push(byte);
                continue;
            }
        };
        out.push(escaped);
        bytes.next();
    }
    Cow::Owned(out)
}
