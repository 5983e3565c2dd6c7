//! `delete`: takes vhosts out of the fleet.

use dysvr_proto::wire::operator::ChangeRequest;

use super::apply::{self, Applied};
use crate::ctl::bundle::Bundle;
use crate::ctl::cli::{self, Inputs};
use crate::ctl::connect::Controllers;
use crate::ctl::exit::Failure;
use crate::ctl::output::Output;
use crate::ctl::resource::{self, Kind};
use crate::ctl::{input, strategy};

pub(super) async fn run(controllers: &mut Controllers, output: Output, options: &cli::Delete) -> Result<(), Failure> {
    let delete_vhosts = match options.filename.is_empty() {
        true => of_words(&options.words)?,
        false => of_files(options)?,
    };
    let request = ChangeRequest {
        files: Vec::new(),
        delete_vhosts,
        message: options.note.message.clone().unwrap_or_default(),
        author: strategy::author(),
        strategy: Some(strategy::to_wire(&options.strategy)),
        dry_run: options.dry_run,
    };
    let reply = apply::send(controllers, request, &Bundle::default()).await?;
    apply::finish(controllers, output, &Applied::new(&reply, options.dry_run), &options.waiting).await
}

fn of_words(words: &[String]) -> Result<Vec<String>, Failure> {
    let selection = resource::selection(words).map_err(Failure::Usage)?;
    match (selection.kind, selection.names.is_empty()) {
        (Kind::Vhost, false) => Ok(selection.names),
        (Kind::Vhost, true) => Err(Failure::Usage("which vhost? (a vsvc_id, a server name or a file)".into())),
        (kind, _) => Err(Failure::Usage(format!("{} cannot be deleted, only vhosts can", kind.plural()))),
    }
}

/// The vhost files among what `-f` names: what they include may be shared, and goes when nothing needs it.
fn of_files(options: &cli::Delete) -> Result<Vec<String>, Failure> {
    let inputs = Inputs { filename: options.filename.clone(), recursive: options.recursive, name: None };
    let bundle = input::gather(&inputs)?;
    Ok(bundle.vhost_files().map(str::to_owned).collect())
}
