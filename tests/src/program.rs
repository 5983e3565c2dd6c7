//! How the programs of this harness leave: with nothing of what they have started left, Ctrl-C included.

use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{process, wait};

/// What a shell says of a program that SIGINT has ended.
const INTERRUPTED: u8 = 130;

/// Does `work`, which says whether all is well. SIGINT and SIGTERM end every wait of the program, so that what it has started goes
/// in order; who waits for nothing else can wait for what `work` is given. A second signal ends all of it at once.
pub fn run(name: &str, work: impl FnOnce(&Receiver<()>) -> Result<bool>) -> ExitCode {
    let (told, interrupted) = mpsc::channel();
    if let Err(error) = std::thread::Builder::new().name("signals".to_owned()).spawn(move || await_signals(&told)) {
        eprintln!("{name}: {error}");
        return ExitCode::FAILURE;
    }
    let outcome = work(&interrupted);
    // Drop has ended all processes by now; this is for one that was being started when an error came.
    process::end_everything();
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(_) if wait::interrupted() => INTERRUPTED.into(),
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn await_signals(told: &Sender<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
            return;
        };
        either(&mut int, &mut term).await;
        wait::interrupt();
        let _ = told.send(());
        either(&mut int, &mut term).await;
        process::end_everything();
        std::process::exit(INTERRUPTED.into());
    });
}

async fn either(int: &mut Signal, term: &mut Signal) {
    tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
}
