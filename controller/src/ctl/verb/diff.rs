//! `diff`: what `apply` would change, against what the fleet should have.

use dysvr_proto::wire::operator::ChangeRequest;

use crate::ctl::cli;
use crate::ctl::connect::Controllers;
use crate::ctl::exit::Failure;
use crate::ctl::output::Output;
use crate::ctl::view::ChangeKind;
use crate::ctl::{input, plan, unified};

pub(super) async fn run(controllers: &mut Controllers, output: Output, options: &cli::Diff) -> Result<(), Failure> {
    let bundle = input::gather(&options.inputs)?;
    let request = ChangeRequest { files: input::to_wire(&bundle), dry_run: true, ..ChangeRequest::default() };
    let plan = controllers.read(async |mut client| client.validate(request.clone()).await).await?;
    let head = plan.base_revision;
    for change in &plan.changes {
        let after = bundle.path_of(&change.name).map_or_else(|| change.name.clone(), |path| path.display().to_string());
        let before = format!("revision/{head}/{}", change.name);
        let (before, after) = unified::labels(ChangeKind::from(change.kind()), &before, &after);
        let text = unified::unified(&before, &after, &change.before, &change.after);
        output.print(&unified::painted(&text, output))?;
    }
    if let Some(refusal) = plan::refusal(&plan.problems, &bundle) {
        return Err(refusal);
    }
    if plan.changes.is_empty() { Ok(()) } else { Err(Failure::Differences) }
}
