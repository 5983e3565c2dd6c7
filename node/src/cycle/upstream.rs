//! Upstreams as they run.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use dysvr_conf::model;

use super::digest::{Kind, Sum};
use crate::http::upstream::State;

/// An upstream at one moment: its configuration, and the health, counters and idle connections of its peers.
#[derive(Debug)]
pub struct Upstream {
    /// What it is.
    pub conf: Arc<model::Upstream>,
    /// What it has been through.
    pub state: State,
}

/// The identity of an upstream: vhosts hold the cell, so that a new configuration of the upstream reaches all of them
/// at once, while a request goes on with what it took out.
#[derive(Debug)]
pub struct UpstreamCell {
    current: RefCell<Rc<Upstream>>,
    /// Vhosts that pass to it; it cannot go while there are any.
    pub(super) users: Cell<u32>,
}

impl UpstreamCell {
    pub(super) fn new(conf: &Arc<model::Upstream>) -> Rc<Self> {
        let upstream = Upstream { conf: Arc::clone(conf), state: State::new(conf) };
        Rc::new(Self { current: RefCell::new(Rc::new(upstream)), users: Cell::new(0) })
    }

    /// The upstream as it is now.
    pub fn get(&self) -> Rc<Upstream> {
        Rc::clone(&self.current.borrow())
    }

    /// Its part of the cycle's digest.
    pub fn sum(&self) -> Sum {
        let current = self.current.borrow();
        Sum::of(Kind::Upstream, (&*current.conf.name, current.conf.digest.0, self.users.get()))
    }

    pub(super) fn replace(&self, conf: &Arc<model::Upstream>) {
        let old = self.get();
        let state = State::carry_over(&old.state, &old.conf, conf);
        self.current.replace(Rc::new(Upstream { conf: Arc::clone(conf), state }));
    }
}
