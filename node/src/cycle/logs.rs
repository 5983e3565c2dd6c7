//! The log files of a vhost, opened when the vhost is made: in the master before the workers are forked (they inherit
//! them, root or not), in the workers when it joins in place; what a worker may not open it is handed by the master. Those of `http` itself are opened at the start even when
//! no vhost logs there yet: a worker that is not root may be unable to.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use dysvr_conf::http::LocConf;
use dysvr_conf::http::rewrite::Op;
use dysvr_conf::main_conf::LogTarget;
use dysvr_conf::model::{Http, Locations, Vhost};

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::{Prepared, Refusal};
use crate::log::{LogFile, open_file};

/// Opens each file that the vhost's locations log to, once; relative error logs are below the prefix. Those of `http` are
/// not among them: the cycle has them.
pub(super) fn open(vhost: &Vhost, http: Option<&Http>) -> Result<Box<[Rc<LogFile>]>, Refusal> {
    let prefix = http.map_or(Path::new(""), |http| &http.options.prefix);
    let seen = http.map(|http| [Arc::as_ptr(&http.loc.log).cast(), Arc::as_ptr(&http.loc.core).cast()]);
    let mut open = Open { prefix, files: Vec::new(), seen: seen.into_iter().flatten().collect() };
    open.conf(&vhost.loc)?;
    open.script(&vhost.script)?;
    open.locations(&vhost.locations)?;
    Ok(open.files.into_boxed_slice())
}

impl Prepared {
    /// The log files that nobody has open but the vhosts that come.
    pub fn fresh_logs(&self) -> Vec<&Rc<LogFile>> {
        let mut holders: FxHashMap<*const LogFile, (usize, &Rc<LogFile>)> = FxHashMap::default();
        for log in self.new.iter().flat_map(|vhost| &vhost.logs) {
            holders.entry(Rc::as_ptr(log)).or_insert((0, log)).0 += 1;
        }
        holders.into_values().filter(|(count, log)| Rc::strong_count(log) == *count).map(|(_, log)| log).collect()
    }
}

struct Open<'a> {
    prefix: &'a Path,
    files: Vec<Rc<LogFile>>,
    /// Configurations that were looked at: most locations share their vhost's.
    seen: SmallVec<[*const (); 8]>,
}

/// Opens each file that `http` itself logs to.
pub(super) fn open_http(http: &Http) -> Result<Box<[Rc<LogFile>]>, Refusal> {
    let mut open = Open { prefix: &http.options.prefix, files: Vec::new(), seen: SmallVec::new() };
    open.conf(&http.loc)?;
    Ok(open.files.into_boxed_slice())
}

impl Open<'_> {
    fn locations(&mut self, locations: &Locations) -> Result<(), Refusal> {
        for location in locations.prefixes.iter().chain(&locations.regexes).chain(&locations.named) {
            self.conf(&location.conf)?;
            self.script(&location.script)?;
            self.locations(&location.nested)?;
        }
        Ok(())
    }

    fn script(&mut self, script: &[Op]) -> Result<(), Refusal> {
        for op in script {
            if let Op::If { then, .. } = op {
                if let Some(conf) = &then.conf {
                    self.conf(conf)?;
                }
                self.script(&then.script)?;
            }
        }
        Ok(())
    }

    fn conf(&mut self, conf: &LocConf) -> Result<(), Refusal> {
        if self.is_new(Arc::as_ptr(&conf.log).cast()) {
            for log in conf.log.access_logs.iter() {
                self.file(&log.path)?;
            }
        }
        if self.is_new(Arc::as_ptr(&conf.core).cast()) {
            for log in conf.core.error_logs.iter() {
                if let LogTarget::File(path) = &log.target {
                    self.file(&self.prefix.join(path))?;
                }
            }
        }
        Ok(())
    }

    fn is_new(&mut self, conf: *const ()) -> bool {
        let new = !self.seen.contains(&conf);
        if new {
            self.seen.push(conf);
        }
        new
    }

    fn file(&mut self, path: &Path) -> Result<(), Refusal> {
        if self.files.iter().any(|file| file.path() == path) {
            return Ok(());
        }
        let file = open_file(path).map_err(|error| {
            Refusal::Wrong(format!("open() \"{}\" failed ({})", path.display(), crate::os::errno(&error)))
        })?;
        self.files.push(file);
        Ok(())
    }
}
