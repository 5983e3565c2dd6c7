//! The log files of a vhost, opened when the vhost is made: in the master before the workers are forked (they inherit
//! them, root or not), in the workers when it joins in place; what a worker may not open it is handed by the master. Those of `http` itself are opened at the start even when
//! no vhost logs there yet: a worker that is not root may be unable to.

use std::path::{Path, PathBuf};
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

/// The files that a vhost logs to and `http` itself does not, which the cycle has open.
pub(super) fn own_paths(vhost: &Vhost, http: &LocConf, prefix: &Path) -> Vec<PathBuf> {
    let seen = [Arc::as_ptr(&http.log).cast(), Arc::as_ptr(&http.core).cast()];
    let mut wanted = Wanted { prefix, paths: Vec::new(), seen: seen.into_iter().collect() };
    wanted.conf(&vhost.loc);
    wanted.script(&vhost.script);
    wanted.locations(&vhost.locations);
    if wanted.paths.is_empty() {
        return wanted.paths;
    }
    let of_http = paths_of_http(http, prefix);
    wanted.paths.retain(|path| !of_http.contains(path));
    wanted.paths
}

/// Opens the files that `http` itself logs to.
pub(super) fn open_http(http: &Http) -> Result<Box<[Rc<LogFile>]>, Refusal> {
    open(&paths_of_http(&http.loc, &http.options.prefix))
}

/// Opens files.
pub(super) fn open(paths: &[PathBuf]) -> Result<Box<[Rc<LogFile>]>, Refusal> {
    let open = |path: &PathBuf| {
        open_file(path).map_err(|error| {
            Refusal::Wrong(format!("open() \"{}\" failed ({})", path.display(), crate::os::errno(&error)))
        })
    };
    paths.iter().map(open).collect()
}

fn paths_of_http(http: &LocConf, prefix: &Path) -> Vec<PathBuf> {
    let mut wanted = Wanted { prefix, paths: Vec::new(), seen: SmallVec::new() };
    wanted.conf(http);
    wanted.paths
}

impl Prepared {
    /// The log files that nobody has open but the vhosts that come.
    pub fn fresh_logs(&self) -> Vec<&Rc<LogFile>> {
        let mut holders: FxHashMap<*const LogFile, (usize, &Rc<LogFile>)> = FxHashMap::default();
        for log in self.pinned.iter().flat_map(|vhost| &vhost.logs) {
            holders.entry(Rc::as_ptr(log)).or_insert((0, log)).0 += 1;
        }
        holders.into_values().filter(|(count, log)| Rc::strong_count(log) == *count).map(|(_, log)| log).collect()
    }
}

/// The log files of a vhost's locations; relative error logs are below the prefix.
struct Wanted<'a> {
    prefix: &'a Path,
    /// Each once.
    paths: Vec<PathBuf>,
    /// Configurations that were looked at: most locations share their vhost's, or that of `http`.
    seen: SmallVec<[*const (); 8]>,
}

impl Wanted<'_> {
    fn locations(&mut self, locations: &Locations) {
        for location in locations.prefixes.iter().chain(&locations.regexes).chain(&locations.named) {
            self.conf(&location.conf);
            self.script(&location.script);
            self.locations(&location.nested);
        }
    }

    fn script(&mut self, script: &[Op]) {
        for op in script {
            if let Op::If { then, .. } = op {
                if let Some(conf) = &then.conf {
                    self.conf(conf);
                }
                self.script(&then.script);
            }
        }
    }

    fn conf(&mut self, conf: &LocConf) {
        if self.is_new(Arc::as_ptr(&conf.log).cast()) {
            for log in conf.log.access_logs.iter() {
                self.file(log.path.to_path_buf());
            }
        }
        if self.is_new(Arc::as_ptr(&conf.core).cast()) {
            for log in conf.core.error_logs.iter() {
                if let LogTarget::File(path) = &log.target {
                    self.file(self.prefix.join(path));
                }
            }
        }
    }

    fn is_new(&mut self, conf: *const ()) -> bool {
        let new = !self.seen.contains(&conf);
        if new {
            self.seen.push(conf);
        }
        new
    }

    fn file(&mut self, path: PathBuf) {
        if !self.paths.contains(&path) {
            self.paths.push(path);
        }
    }
}
