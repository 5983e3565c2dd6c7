//! What stays of vhosts and upstreams when a load has made them.

use std::sync::Arc;

use super::LoadOptions;
use super::http::Levels;
use crate::model::{Outline, Upstream, Vhost};

/// What a load keeps of the vhosts and upstreams that it makes. It is asked by whichever thread has made one, as soon as it
/// is made, so that what is not kept does not add up.
pub trait Keep: Sync {
    /// What is kept of a vhost.
    type Vhost: Send;
    /// What is kept of an upstream.
    type Upstream: Send;

    /// Takes a vhost that was merged from `levels`.
    fn vhost(&self, vhost: Vhost, levels: &Levels, options: &LoadOptions) -> Self::Vhost;

    /// Takes an upstream.
    fn upstream(&self, upstream: Upstream) -> Self::Upstream;

    /// What others must know of a vhost.
    fn outline(vhost: &Self::Vhost) -> &Outline;
}

/// Keeps all of them as they are.
#[derive(Clone, Copy, Debug)]
pub struct Whole;

impl Keep for Whole {
    type Vhost = Arc<Vhost>;
    type Upstream = Arc<Upstream>;

    fn vhost(&self, vhost: Vhost, _: &Levels, _: &LoadOptions) -> Arc<Vhost> {
        Arc::new(vhost)
    }

    fn upstream(&self, upstream: Upstream) -> Arc<Upstream> {
        Arc::new(upstream)
    }

    fn outline(vhost: &Arc<Vhost>) -> &Outline {
        &vhost.outline
    }
}
