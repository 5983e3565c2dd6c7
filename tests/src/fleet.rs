//! A whole fleet on one machine: a controller with its store, nodes with their agents and proxies, an origin.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::controller::Controller;
use crate::ctl::Ctl;
use crate::etcd::Etcd;
use crate::node::Node;
use crate::origin::Origin;
use crate::prefix::MainConf;
use crate::{process, seed, wait};

/// How long nodes may take to dial in or to follow, in a test.
pub const LIMIT: Duration = crate::proxy::LIMIT;

/// Where the controller keeps its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// The database in a file.
    Embedded,
    /// A real etcd.
    Etcd,
}

/// A fleet. Fields are dropped in order: nodes, then their controller, then its store.
#[derive(Debug)]
pub struct Fleet {
    /// In the order of their names: node-1, node-2, ….
    pub nodes: Vec<Node>,
    /// The controller.
    pub controller: Controller,
    /// The etcd behind it.
    pub etcd: Option<Etcd>,
    /// Where requests end.
    pub origin: Origin,
    /// Where an operator keeps the files to apply, laid out as conf/ is.
    pub files: PathBuf,
    dir: TempDir,
}

impl Fleet {
    /// Starts controller and nodes and waits until all have dialled in. `say` is told each step as it begins.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn start(nodes: usize, store: Store, mut say: impl FnMut(&str)) -> Result<Self> {
        let mut fleet = Self::without_nodes(store, &mut say)?;
        for number in 1..=nodes {
            let id = format!("node-{number}");
            say(&id);
            fleet.add_node(&id, &MainConf::default(), &[])?;
        }
        say("nodes to dial in");
        fleet.wait_connected(nodes)?;
        Ok(fleet)
    }

    /// Starts origin, store and controller.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn without_nodes(store: Store, mut say: impl FnMut(&str)) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("dysvr-fleet-").tempdir().context("making a fleet's directory")?;
        let files = dir.path().join("files");
        for name in ["auto_vhost", "auto_upstream"] {
            fs::create_dir_all(files.join(name)).context("making the operator's directory")?;
        }
        let logs = dir.path().join("logs");
        say("origin");
        let origin = Origin::start("demo")?;
        let etcd = match store {
            Store::Embedded => None,
            Store::Etcd => {
                say("etcd");
                Some(Etcd::start(&logs)?)
            }
        };
        let store = etcd.as_ref().map_or_else(|| format!("file:{}", dir.path().join("store").display()), Etcd::store);
        say("controller");
        let controller = Controller::start(&store, &logs)?;
        Ok(Self { nodes: Vec::new(), controller, etcd, origin, files, dir })
    }

    /// Starts one more node, with more options for its agent.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn add_node(&mut self, id: &str, conf: &MainConf, options: &[&str]) -> Result<()> {
        let endpoint = self.controller.endpoint();
        let zone = format!("zone=z{}", self.nodes.len() % 2);
        self.nodes.push(Node::start(id, &[&zone], Some(&endpoint), conf, options)?);
        Ok(())
    }

    /// A node by its name.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&mut self, id: &str) -> Result<&mut Node> {
        self.nodes.iter_mut().find(|node| node.id == id).with_context(|| format!("there is no {id}"))
    }

    /// The command line.
    pub fn ctl(&self) -> Ctl {
        self.controller.ctl()
    }

    /// The fleet's own directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file into the operator's directory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.files.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// Writes the seed's vhost, its upstream (with this fleet's origin) and the shared include.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_seed(&self) -> Result<()> {
        self.write(seed::VHOST_FILE, &seed::vhost_of_fleet())?;
        self.write(seed::UPSTREAM_FILE, &seed::upstream(self.origin.addr))?;
        self.write(seed::COMMON_FILE, seed::COMMON)
    }

    /// The operator's directory as an argument.
    pub fn files_arg(&self) -> String {
        self.files.display().to_string()
    }

    /// Nodes as the controller sees them.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn seen_nodes(&self) -> Result<Vec<Value>> {
        items(&self.ctl().json(&["get", "nodes"])?)
    }

    /// Waits until the controller sees that many connected nodes.
    ///
    /// # Errors
    /// After the limit.
    pub fn wait_connected(&self, count: usize) -> Result<()> {
        wait::eventually("the nodes to dial in", LIMIT, || -> Result<()> {
            let nodes = self.seen_nodes()?;
            let connected = nodes.iter().filter(|node| node["connected"] == Value::Bool(true)).count();
            ensure!(connected == count, "{connected} of {count}: {nodes:?}");
            Ok(())
        })
        .with_context(|| process::tail(&self.controller.output()))
    }

    /// Checks that every worker of every node answers a request for `host` with `status`; for 200 also that the answer
    /// holds `text`.
    ///
    /// # Errors
    /// With the first worker that does not.
    pub fn check_every_worker(&self, host: &str, status: u16, text: &str) -> Result<()> {
        for node in &self.nodes {
            for reply in node.ask_every_worker(host, "/")? {
                let answer = reply.text();
                ensure!(
                    reply.status == status && answer.contains(text),
                    "{} worker {:?} answers {} {answer:?} for {host}",
                    node.id,
                    reply.worker(),
                    reply.status
                );
            }
        }
        Ok(())
    }
}

/// The rows of a list in JSON, whether it is printed as an array or below `items`.
///
/// # Errors
/// When it is neither.
pub fn items(value: &Value) -> Result<Vec<Value>> {
    let list = value.as_array().or_else(|| value["items"].as_array());
    list.cloned().with_context(|| format!("not a list: {value}"))
}
