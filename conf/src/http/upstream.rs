//! `ngx_http_upstream_module`: `upstream {}` and what stands in it. Its model is [`crate::model::Upstream`].

use crate::directive::{Arity, BlockKind, Directive, Done, HTTP, Setter, UPSTREAM};
use crate::load::{Call, Form, UpstreamSet, number, parse_url, seconds};

/// Nothing.
pub type MainSet = ();
/// Nothing.
pub type SrvSet = ();
/// Nothing.
pub type LocSet = ();

/// The table.
pub static DIRECTIVES: &[Directive] = &[
    Directive::new("upstream", HTTP, Arity::exactly(1), Setter::Block(BlockKind::Upstream)),
    Directive::new("server", UPSTREAM, Arity::at_least(1), Setter::Upstream(server)),
    Directive::new("keepalive", UPSTREAM, Arity::exactly(1), Setter::Upstream(keepalive)),
];

fn server(set: &mut UpstreamSet, call: &mut Call<'_, '_>) -> Done {
    let (mut weight, mut max_fails, mut fail_timeout) = (1, 1, 10);
    let (mut backup, mut down) = (false, false);
    for word in &call.arguments()[1..] {
        let invalid = || format!("invalid parameter \"{}\"", word.text);
        let small = |text: &str| number(text).and_then(|value| u32::try_from(value).ok());
        match word.text.split_once('=').map_or((word.text, None), |(name, value)| (name, Some(value))) {
            ("weight", Some(value)) => weight = small(value).filter(|weight| *weight > 0).ok_or_else(invalid)?,
            ("max_fails", Some(value)) => max_fails = small(value).ok_or_else(invalid)?,
            ("fail_timeout", Some(value)) => fail_timeout = seconds(value).ok_or_else(invalid)?,
            ("backup", None) => backup = true,
            ("down", None) => down = true,
            ("max_conns" | "slow_start" | "resolve" | "service" | "route" | "drain" | "id", _) => {
                return Err(format!("{}, it is not supported", invalid()).into());
            }
            _ => return Err(invalid().into()),
        }
    }
    let text = call.arg(1);
    let fault = |error: &str| format!("{error} in upstream \"{text}\"");
    let url = parse_url(text, Form::Peer).map_err(fault)?;
    for addr in call.load.addresses(&url).map_err(fault)? {
        let mut peer = call.peer(addr);
        (peer.weight, peer.max_fails, peer.fail_timeout) = (weight, max_fails, fail_timeout);
        (peer.backup, peer.down) = (backup, down);
        set.peers.push(peer);
    }
    Ok(())
}

fn keepalive(set: &mut UpstreamSet, call: &mut Call<'_, '_>) -> Done {
    if set.keepalive.is_some() {
        return Err(call.fault("is duplicate"));
    }
    let count = number(call.arg(1)).filter(|count| *count > 0).and_then(|count| u32::try_from(count).ok());
    let invalid = || format!("invalid value \"{}\" in \"keepalive\" directive", call.arg(1));
    set.keepalive = Some(count.ok_or_else(invalid)?);
    Ok(())
}
