//! Whether this controller leads, and who does if not.

use std::sync::Arc;

use tokio::sync::watch;
use tonic::Status;

use super::lead::Lead;
use crate::store::{Candidate, Leader, Store};

/// Shared by all services.
#[derive(Clone, Debug)]
pub(super) struct Throne {
    store: Arc<dyn Store>,
    me: Candidate,
    lead: watch::Sender<Option<Arc<Lead>>>,
}

impl Throne {
    /// Empty.
    pub(super) fn new(store: Arc<dyn Store>, me: Candidate) -> Self {
        Self { store, me, lead: watch::Sender::new(None) }
    }

    /// This controller's name.
    pub(super) fn name(&self) -> &str {
        &self.me.name
    }

    /// Who stands for election here.
    pub(super) fn candidate(&self) -> &Candidate {
        &self.me
    }

    /// The store.
    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Takes the throne.
    pub(super) fn take(&self, lead: Arc<Lead>) {
        self.lead.send_replace(Some(lead));
    }

    /// Leaves it. Answers the news of when the store knows.
    pub(super) fn leave(&self) -> Option<watch::Receiver<bool>> {
        let lead = self.lead.send_replace(None)?;
        lead.end();
        Some(lead.reign.end())
    }

    /// Whether this controller leads.
    pub(super) fn leads(&self) -> bool {
        self.lead.borrow().as_ref().is_some_and(|lead| !lead.is_over())
    }

    /// The reign of this controller, or UNAVAILABLE with the name and address of the leader, as text and as
    /// `dysvr-leader` metadata.
    pub(super) async fn lead(&self) -> Result<Arc<Lead>, Status> {
        if let Some(lead) = self.lead.borrow().as_ref().filter(|lead| !lead.is_over()) {
            return Ok(Arc::clone(lead));
        }
        Err(match self.store.leader().await {
            Ok(Some(Leader { candidate, .. })) if candidate != self.me => {
                let text = format!("{} does not lead; {} at {} does", self.me.name, candidate.name, candidate.address);
                let mut status = Status::unavailable(text);
                if let Ok(address) = candidate.address.parse() {
                    status.metadata_mut().insert("dysvr-leader", address);
                }
                status
            }
            Ok(_) => Status::unavailable(format!("{} does not lead yet", self.me.name)),
            Err(error) => Status::unavailable(format!("{} does not lead: {error}", self.me.name)),
        })
    }
}
