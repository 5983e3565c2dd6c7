//! `rollout undo`: a new revision with the content of an earlier one.

use dysvr_proto::wire::operator::UndoRequest;

use super::apply::{self, Applied};
use crate::ctl::bundle::Bundle;
use crate::ctl::cli;
use crate::ctl::connect::Controllers;
use crate::ctl::exit::Failure;
use crate::ctl::output::Output;
use crate::ctl::{plan, strategy};

pub(super) async fn run(controllers: &mut Controllers, output: Output, options: &cli::Undo) -> Result<(), Failure> {
    let request = UndoRequest {
        rollout: options.which.id.unwrap_or_default(),
        to_revision: options.to_revision.unwrap_or_default(),
        author: strategy::author(),
        message: options.note.message.clone().unwrap_or_default(),
        strategy: Some(strategy::to_wire(&options.strategy)),
    };
    let reply = controllers.change(async |mut client| client.undo(request.clone()).await).await?;
    let problems = reply.plan.as_ref().map_or(&[][..], |plan| &plan.problems);
    if let Some(refusal) = plan::refusal(problems, &Bundle::default()) {
        return Err(refusal);
    }
    apply::finish(controllers, output, &Applied::new(&reply, false), &options.waiting).await
}
