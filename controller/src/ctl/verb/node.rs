//! `node`: what becomes of a node whose files were changed by hand.

use dysvr_proto::wire::operator::{DriftRequest, drift_request::Choice};

use crate::ctl::cli;
use crate::ctl::connect::Controllers;
use crate::ctl::exit::Failure;
use crate::ctl::output::Output;
use crate::ctl::view::Node;

pub(super) async fn run(controllers: &mut Controllers, output: Output, verb: cli::Node) -> Result<(), Failure> {
    let (name, choice, done) = match verb {
        cli::Node::Revert { name } => (name, Choice::Revert, "reverting"),
        cli::Node::Hold { name } => (name, Choice::Hold, "held"),
    };
    let name = name.strip_prefix("node/").map_or(name.clone(), str::to_owned);
    let request = DriftRequest { node: name, choice: choice.into() };
    let node = controllers.change(async |mut client| client.resolve_drift(request.clone()).await).await?;
    let node = Node::from(node);
    output.line(&format!("node/{} {done}", node.name))
}
