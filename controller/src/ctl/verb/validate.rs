//! `validate`: are these files fit for the fleet?

use dysvr_proto::wire::operator::ChangeRequest;

use crate::ctl::bundle::Bundle;
use crate::ctl::cli;
use crate::ctl::connect::Controllers;
use crate::ctl::exit::Failure;
use crate::ctl::output::Output;
use crate::ctl::progress::count;
use crate::ctl::{input, plan};

pub(super) async fn run(controllers: &mut Controllers, output: Output, options: &cli::Validate) -> Result<(), Failure> {
    let bundle = input::gather(&options.inputs)?;
    by_the_controller(controllers, &bundle).await?;
    output.line(&format!("{} valid", count(bundle.files.len(), "file")))
}

/// Against what the fleet has.
async fn by_the_controller(controllers: &mut Controllers, bundle: &Bundle) -> Result<(), Failure> {
    let request = ChangeRequest { files: input::to_wire(bundle), dry_run: true, ..ChangeRequest::default() };
    let plan = controllers.read(async |mut client| client.validate(request.clone()).await).await?;
    match plan::refusal(&plan.problems, bundle) {
        Some(refusal) => Err(refusal),
        None => Ok(()),
    }
}
