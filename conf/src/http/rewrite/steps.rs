//! `set`, `return`, `rewrite`.

use super::{Flag, Op};
use crate::directive::Done;
use crate::load::{Call, number};

pub(super) fn set(call: &mut Call<'_, '_>) -> Done<Op> {
    let Some(name) = call.arg(1).strip_prefix('$') else {
        return Err(format!("invalid variable name \"{}\"", call.arg(1)).into());
    };
    let target = call.load.set_target(name)?;
    Ok(Op::Set { target, value: call.template(call.arg(2))? })
}

/// Whether a text is a URL to redirect to, for nginx.
fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://") || text.starts_with("$scheme")
}

pub(super) fn returns(call: &mut Call<'_, '_>) -> Done<Op> {
    let (code, count) = (call.arg(1), call.arguments().len());
    let (status, body) = match number(code) {
        None if count == 1 && is_url(code) => (302, Some(code)),
        Some(status @ 0..=999) => (status as u16, (count == 2).then(|| call.arg(2))),
        _ => return Err(format!("invalid return code \"{code}\"").into()),
    };
    let body = body.map(|text| call.template(text)).transpose()?;
    Ok(Op::Return { status, body })
}

pub(super) fn rewrite(call: &mut Call<'_, '_>) -> Done<Op> {
    let replacement = call.arg(2);
    if replacement.is_empty() {
        return Err("empty replacement".into());
    }
    let (regex, groups) = call.regex_with_groups(call.arg(1), false)?;
    let url = is_url(replacement);
    let flag = match call.arg(3) {
        "permanent" => Flag::Permanent,
        "redirect" => Flag::Redirect,
        "last" | "break" | "" if url => Flag::Redirect,
        "last" => Flag::Last,
        "break" => Flag::Break,
        "" if call.arguments().len() == 2 => Flag::Next,
        other => return Err(format!("invalid parameter \"{other}\"").into()),
    };
    // A `?` at the end drops the request's own arguments.
    let (replacement, keep_args) = replacement.strip_suffix('?').map_or((replacement, true), |text| (text, false));
    let (path, args) = replacement.split_once('?').map_or((replacement, None), |(path, args)| (path, Some(args)));
    let args = args.map(|args| call.template(args)).transpose()?;
    Ok(Op::Rewrite { regex, groups, replacement: call.template(path)?, args, keep_args, flag })
}
