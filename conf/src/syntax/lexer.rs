//! The words and marks of the language, one at a time.
//!
//! The rules follow nginx's reader byte by byte: a bare word ends at blank, `;` or `{` (but not at a `{` behind `$`),
//! may hold `}`, quotes and `#` anywhere but at its start; a quoted word must be followed by a blank, `;`, `{` or `)`.

use std::borrow::Cow;

use nom::branch::alt;
use nom::bytes::complete::{tag, take, take_till, take_while, take_while1};
use nom::combinator::{map, opt, recognize, value};
use nom::multi::fold_many0;
use nom::sequence::{preceded, terminated};
use nom::{IResult, Parser};

/// What stands next in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A word without quotes, escapes not yet resolved.
    Bare(&'a [u8]),
    /// The inside of a quoted word, escapes not yet resolved.
    Quoted(&'a [u8]),
    /// A quote that nothing closes, with all that follows it.
    Unclosed(u8),
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

/// Blanks and comments; may be empty.
pub(super) fn gap(input: &[u8]) -> IResult<&[u8], &[u8]> {
    let comment = preceded(tag("#"), take_till(|byte| byte == b'\n'));
    recognize(fold_many0(alt((take_while1(is_blank), comment)), || (), |(), _| ())).parse(input)
}

/// The next token; an error only at the end of the text. The caller has skipped the [`gap`].
pub(super) fn token(input: &[u8]) -> IResult<&[u8], Token<'_>> {
    match input.first() {
        Some(b'"') => quoted(b'"', input),
        Some(b'\'') => quoted(b'\'', input),
        _ => alt((
            value(Token::Semicolon, tag(&b";"[..])),
            value(Token::Open, tag(&b"{"[..])),
            value(Token::Close, tag(&b"}"[..])),
            map(bare, Token::Bare),
        ))
        .parse(input),
    }
}

fn bare(input: &[u8]) -> IResult<&[u8], &[u8]> {
    let plain = take_while1(|byte| CLASS[byte as usize] & BARE_STOP == 0);
    // `\` takes the next byte with it, whatever it is; at the end of the file it stands alone.
    let escape = recognize((tag(&b"\\"[..]), opt(take(1usize))));
    let variable = recognize((tag(&b"$"[..]), take_while(|byte| byte == b'{')));
    let (rest, word) = recognize(fold_many0(alt((plain, escape, variable)), || (), |(), _| ())).parse(input)?;
    if word.is_empty() {
        return Err(nom::Err::Error(nom::error::Error::new(input, nom::error::ErrorKind::TakeWhile1)));
    }
    Ok((rest, word))
}

fn quoted(quote: u8, input: &[u8]) -> IResult<&[u8], Token<'_>> {
    let inside = |input| {
        let plain = take_while1(move |byte| byte != quote && byte != b'\\');
        let escape = recognize((tag(&b"\\"[..]), take(1usize)));
        recognize(fold_many0(alt((plain, escape)), || (), |(), _| ())).parse(input)
    };
    let mark = [quote];
    let closed = terminated(preceded(take(1usize), inside), tag(&mark[..]));
    match map(closed, Token::Quoted).parse(input) {
        Ok(done) => Ok(done),
        Err(nom::Err::Error(error)) => {
            let _: nom::error::Error<&[u8]> = error;
            Ok((&input[input.len()..], Token::Unclosed(quote)))
        }
        Err(error) => Err(error),
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
