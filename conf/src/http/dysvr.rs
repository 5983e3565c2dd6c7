//! The in-place update: `dysvr…` of the original module, `vsvc_id` and `loc_id`.

use std::path::PathBuf;
use std::time::Duration;

use super::MainSet as AnyMainSet;
use crate::directive::{Arity, Directive, Done, HTTP, LOCATION, SERVER, Setter};
use crate::load::{Call, ServerSet, size};
use crate::model::VsvcId;

/// The table.
pub static DIRECTIVES: &[Directive] = &[
    Directive::new("dysvr", HTTP, Arity::FLAG, Setter::Http(|set, call| call.once(&mut set.dysvr.enable, call.flag()?))),
    Directive::new(
        "dysvr_trylock",
        HTTP,
        Arity::FLAG,
        Setter::Http(|set, call| call.once(&mut set.dysvr.trylock, call.flag()?)),
    ),
    Directive::new("dysvr_shm_zone", HTTP, Arity::exactly(2), Setter::Http(shm_zone)),
    Directive::new(
        "dysvr_task_timeout",
        HTTP,
        Arity::exactly(1),
        Setter::Http(|set, call| call.once(&mut set.dysvr.task_timeout, call.time(1)?)),
    ),
    Directive::new("dysvr_watchdog", HTTP, Arity::exactly(1), Setter::Http(watchdog)),
    Directive::new(
        "dysvr_reload_conf",
        HTTP,
        Arity::exactly(1),
        Setter::Http(|set, call| {
            let path = call.prefix_path(call.arg(1));
            call.once(&mut set.dysvr.task_file, Some(path))
        }),
    ),
    Directive::new("dysvr_verify", HTTP, Arity::between(1, 2), Setter::Http(verify)),
    Directive::new("vsvc_id", SERVER, Arity::exactly(1), Setter::Server(vsvc_id)),
    Directive::new(
        "loc_id",
        LOCATION,
        Arity::exactly(1),
        Setter::Loc(|set, call| call.once(&mut set.dysvr.loc_id, Some(call.number(1)?))),
    ),
];

/// The zone holds the resolved text of a task: less than this holds none worth the name.
const SHM_MIN: usize = 64 << 10;

/// Nothing (`vsvc_id` is the vhost's identity, see [`crate::model::Vhost`]).
pub type SrvSet = ();

/// `dysvr_verify TIME [heal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verify {
    /// From the end of one look to the next.
    pub every: Duration,
    /// `heal`: a difference is followed by a reload.
    pub heal: bool,
}

level! {
    /// `http` level.
    pub struct Main from MainSet {
        /// `dysvr on|off`: whether the master obeys task files.
        enable: bool = true,
        /// `dysvr_trylock`: fail a task instead of waiting when the zone's mutex is taken.
        trylock: bool = false,
        /// `dysvr_shm_zone NAME SIZE`: the name.
        shm_name: Box<str> = "dysvr".into(),
        /// `dysvr_shm_zone NAME SIZE`: bytes.
        shm_size: usize = 3 << 20,
        /// `dysvr_task_timeout`: how long workers may take for a task.
        task_timeout: Duration = Duration::from_secs(10),
        /// `dysvr_watchdog`: how long a worker may stay in one step of one request; `None` is `off`.
        watchdog: Option<Duration> = Some(Duration::from_secs(10)),
        /// `dysvr_verify`: how often the running configuration is compared with one that is loaded afresh.
        verify: Option<Verify> = Some(Verify { every: Duration::from_secs(60), heal: false }),
        /// `dysvr_reload_conf`: the task file, absolute; `None` is `dysvr/dy_update_server.conf` below `/dev/shm` or, if that is absent, below the prefix.
        task_file: Option<PathBuf> = None,
    }
}

level! {
    /// Location level.
    #[derive(PartialEq, Eq, Hash)]
    pub struct Loc from LocSet {
        /// `loc_id`: names the location in logs and reports.
        loc_id: Option<u64> = None,
    }
}

fn shm_zone(set: &mut AnyMainSet, call: &mut Call<'_, '_>) -> Done {
    call.once(&mut set.dysvr.shm_name, call.arg(1).into())?;
    let text = call.arg(2);
    let bytes = size(text).and_then(|bytes| usize::try_from(bytes).ok());
    let bytes = bytes.ok_or_else(|| format!("invalid zone size \"{text}\""))?;
    if bytes < SHM_MIN {
        return Err(format!("zone \"{}\" is too small", call.arg(1)).into());
    }
    set.dysvr.shm_size = Some(bytes);
    Ok(())
}

fn watchdog(set: &mut AnyMainSet, call: &mut Call<'_, '_>) -> Done {
    let limit = if call.arg(1) == "off" { None } else { Some(call.time(1)?) };
    if limit.is_some_and(|limit| limit.is_zero()) {
        return Err("\"dysvr_watchdog\" takes a time above 0, or off".into());
    }
    call.once(&mut set.dysvr.watchdog, limit)
}

fn verify(set: &mut AnyMainSet, call: &mut Call<'_, '_>) -> Done {
    let heal = match call.arguments().get(1).map(|word| word.text) {
        None => false,
        Some("heal") if call.arg(1) != "off" => true,
        Some(other) => return Err(format!("invalid parameter \"{other}\"").into()),
    };
    let verify = match call.arg(1) {
        "off" => None,
        _ => Some(Verify { every: call.time(1)?, heal }),
    };
    if verify.is_some_and(|verify| verify.every.is_zero()) {
        return Err(call.fault("invalid value"));
    }
    call.once(&mut set.dysvr.verify, verify)
}

fn vsvc_id(set: &mut ServerSet, call: &mut Call<'_, '_>) -> Done {
    let text = call.arg(1);
    // The whole range of 64 bits, unlike nginx's own numbers.
    let id = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let id = id.filter(|id| *id > 0).ok_or_else(|| format!("invalid vsvc_id \"{text}\""))?;
    call.once(&mut set.vsvc_id, VsvcId(id))
}
