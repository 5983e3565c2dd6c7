//! `validate`: would nodes accept these files?
//!
//! Files that are complete are checked here: no controller is needed for a check before a commit. What they lack, the
//! fleet may have, so then a controller is asked, whose word is the last one. Without one, what was found here stands.

use dysvr_proto::wire::operator::ChangeRequest;

use crate::ctl::bundle::Bundle;
use crate::ctl::cli;
use crate::ctl::connect::Controllers;
use crate::ctl::exit::{self, Failure};
use crate::ctl::output::{Output, printable};
use crate::ctl::progress::count;
use crate::ctl::{input, local, plan};

pub(super) async fn run(controllers: &mut Controllers, output: Output, options: &cli::Validate) -> Result<(), Failure> {
    let bundle = input::gather(&options.inputs)?;
    let found = local::check(&bundle);
    if !found.problems.is_empty() {
        // A missing file or upstream may be one that the fleet has.
        let verdict = match options.offline {
            true => Err(plan::refused(found.problems)),
            false => match by_the_controller(controllers, &bundle).await {
                Err(failure) if failure.code() == exit::UNREACHABLE && bundle.missing.is_empty() => {
                    Err(plan::refused(found.problems))
                }
                verdict => verdict,
            },
        };
        verdict?;
    }
    for warning in &found.warnings {
        output.note(&format!("warning: {}", printable(warning)));
    }
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
