//! `dysvr-node task`: the same chain from a shell, without a controller.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dysvr_conf::syntax;

use super::drive::{Driver, Outcome};
use super::hands::Hands;
use super::index::Index;
use super::managed::{FileName, UPSTREAMS, VHOSTS};
use super::order::{Order, Origin};
use super::overlay::Overlay;
use super::proxy::Layout;
use super::report::Report;
use crate::task::Kind;

/// Why a command makes no order.
#[derive(Debug, thiserror::Error)]
pub enum Misuse {
    /// A file cannot be read.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What happened.
        #[source]
        error: io::Error,
    },
    /// Its name is none that can be managed.
    #[error(transparent)]
    Name(#[from] super::managed::InvalidFileName),
    /// Neither a file nor a vhost's number.
    #[error("{0} is neither a file nor the vsvc_id of a vhost here")]
    Unknown(String),
    /// What is in it has no place of its own.
    #[error("{0} holds neither a server nor an upstream: put it below the configuration's directory first")]
    NoPlace(String),
    /// The configuration cannot be read.
    #[error("{0}")]
    Configuration(String),
}

/// Makes the order. A file below the configuration's directory stays where it is; another one is copied to
/// `auto_vhost/`, or to `auto_upstream/` when it holds upstreams alone. What goes may also be named by its `vsvc_id`;
/// the upstream files that only it includes go with it.
pub fn order(layout: &Layout, kind: Kind, targets: &[String]) -> Result<Order, Misuse> {
    let mut write = BTreeMap::new();
    let mut remove = BTreeSet::new();
    match kind {
        Kind::Add | Kind::Modify | Kind::Set => {
            for target in targets {
                let (name, content) = placed(layout, Path::new(target))?;
                write.insert(name, content);
            }
        }
        Kind::Delete => {
            let index = Index::build(&mut Overlay::disk(), &layout.conf).map_err(Misuse::Configuration)?.0;
            let paths = targets.iter().map(|target| named(layout, &index, target));
            let paths = paths.collect::<Result<BTreeSet<PathBuf>, _>>()?;
            for path in &paths {
                remove.insert(name_of(layout, path)?);
                let parts = index.unit(path).into_iter().flat_map(|unit| unit.parts.keys());
                let own = parts.filter(|part| index.users(part).all(|user| paths.contains(user)));
                remove.extend(own.filter_map(|part| {
                    FileName::of_path(layout.conf_dir(), part).filter(|name| name.is_in(UPSTREAMS))
                }));
            }
        }
    }
    let id = format!("hand-{}-{}", std::process::id(), rand::random::<u32>());
    Ok(Order { id, origin: Origin::Hand(kind), write, remove, deadline: None })
}

/// Gives the order and waits for its verdict.
pub async fn carry_out(hands: Hands, order: Order) -> io::Result<Report> {
    let id = order.id.clone();
    let mut driver = Driver::new(hands)?;
    driver.order(order);
    let mut verdict = None;
    loop {
        match driver.next().await? {
            Outcome::Report(report) if report.id == id => {
                if report.status.is_final() {
                    verdict = Some(report);
                    // What follows the verdict (the lock goes back) is done before the end.
                    driver.stop();
                }
            }
            Outcome::Report(_) | Outcome::Changed => {}
            Outcome::Exit => return verdict.ok_or_else(|| io::Error::other("the task ended without a verdict")),
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Misuse> {
    let described = |error| Misuse::File { path: path.display().to_string(), error };
    // Of the directory alone: a link in auto_vhost/ is a file there, wherever it leads.
    let path = std::path::absolute(path).map_err(described)?;
    match (path.parent().map(fs::canonicalize), path.file_name()) {
        (Some(Ok(dir)), Some(name)) => Ok(dir.join(name)),
        (Some(Err(error)), _) => Err(described(error)),
        _ => Ok(path),
    }
}

fn name_of(layout: &Layout, path: &Path) -> Result<FileName, Misuse> {
    let dir = fs::canonicalize(layout.conf_dir()).unwrap_or_else(|_| layout.conf_dir().to_owned());
    let relative = path.strip_prefix(&dir).or_else(|_| path.strip_prefix(layout.conf_dir()));
    Ok(FileName::new(&relative.unwrap_or(path).to_string_lossy())?)
}

/// A file's name among the managed ones, and its content.
fn placed(layout: &Layout, path: &Path) -> Result<(FileName, Vec<u8>), Misuse> {
    // As seen from here, or from where the configuration's own includes see it.
    let there = layout.conf_dir().join(path);
    let path = if !path.exists() && there.exists() { there.as_path() } else { path };
    let content = fs::read(path).map_err(|error| Misuse::File { path: path.display().to_string(), error })?;
    let full = absolute(path)?;
    let dir = fs::canonicalize(layout.conf_dir()).unwrap_or_else(|_| layout.conf_dir().to_owned());
    if full.starts_with(&dir) {
        return Ok((name_of(layout, &full)?, content));
    }
    let arena = syntax::Arena::new();
    let tree = syntax::parse(&content, &arena);
    let has = |name| tree.directives.iter().any(|directive| directive.name() == name);
    let directory = match (has("server"), has("upstream")) {
        (true, _) => VHOSTS,
        (false, true) => UPSTREAMS,
        (false, false) => return Err(Misuse::NoPlace(path.display().to_string())),
    };
    let base = full.file_name().unwrap_or_default().to_string_lossy();
    Ok((FileName::new(&format!("{directory}/{base}"))?, content))
}

/// The file that goes: a path, the name of a file of `auto_vhost/`, or a `vsvc_id`.
fn named(layout: &Layout, index: &Index, target: &str) -> Result<PathBuf, Misuse> {
    if let Some(owner) = target.parse().ok().and_then(|id| index.owner(id)) {
        return Ok(owner.to_owned());
    }
    let candidates =
        [PathBuf::from(target), layout.conf_dir().join(target), layout.conf_dir().join(VHOSTS).join(target)];
    for candidate in candidates {
        if candidate.is_file()
            && let Ok(name) = name_of(layout, &absolute(&candidate)?)
        {
            return Ok(name.path(layout.conf_dir()));
        }
    }
    Err(Misuse::Unknown(target.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_find_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("conf");
        fs::create_dir_all(conf.join(VHOSTS)).unwrap();
        fs::create_dir_all(conf.join(UPSTREAMS)).unwrap();
        fs::write(conf.join("nginx.conf"), "http { include auto_vhost/*.conf; }").unwrap();
        let upstream = "include auto_upstream/u.conf; include auto_upstream/shared.conf; include common.conf;";
        fs::write(conf.join("auto_vhost/a.conf"), format!("{upstream} server {{ vsvc_id 7; }}")).unwrap();
        fs::write(conf.join("auto_vhost/b.conf"), "include auto_upstream/shared.conf; server { vsvc_id 8; }").unwrap();
        fs::write(conf.join("auto_upstream/u.conf"), "upstream u {}").unwrap();
        fs::write(conf.join("auto_upstream/shared.conf"), "").unwrap();
        fs::write(conf.join("common.conf"), "").unwrap();
        fs::write(dir.path().join("new.conf"), "server { vsvc_id 9; }").unwrap();
        fs::write(dir.path().join("ups.conf"), "upstream x {}").unwrap();
        fs::write(dir.path().join("none.conf"), "").unwrap();
        let layout = Layout {
            prefix: dir.path().to_owned(),
            conf: conf.join("nginx.conf"),
            proxy: PathBuf::new(),
            state: dir.path().join("state"),
        };
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let make = |kind, targets: &[String]| {
            order(&layout, kind, targets).map(|order| {
                let names: Vec<String> = order.write.keys().chain(&order.remove).map(FileName::to_string).collect();
                names.join(" ")
            })
        };
        let added = make(Kind::Add, &[path("new.conf"), path("ups.conf"), path("conf/auto_vhost/a.conf")]);
        assert_eq!(added.unwrap(), "auto_upstream/ups.conf auto_vhost/a.conf auto_vhost/new.conf");
        assert_eq!(make(Kind::Modify, &["auto_vhost/a.conf".into()]).unwrap(), "auto_vhost/a.conf");
        assert!(make(Kind::Add, &[path("none.conf")]).unwrap_err().to_string().contains("neither a server nor"));
        assert!(make(Kind::Add, &[path("absent.conf")]).is_err());
        for target in ["7".to_owned(), "a.conf".into(), "auto_vhost/a.conf".into(), path("conf/auto_vhost/a.conf")] {
            let removed = make(Kind::Delete, std::slice::from_ref(&target)).unwrap();
            assert_eq!(removed, "auto_upstream/u.conf auto_vhost/a.conf", "{target}");
        }
        assert_eq!(
            make(Kind::Delete, &["7".into(), "8".into()]).unwrap(),
            "auto_upstream/shared.conf auto_upstream/u.conf auto_vhost/a.conf auto_vhost/b.conf"
        );
        assert!(make(Kind::Delete, &["9".into()]).unwrap_err().to_string().contains("neither a file nor"));
    }
}
