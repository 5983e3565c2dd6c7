//! Follows a rollout to its end: bars on a terminal, lines elsewhere. A controller that goes away on the way does not
//! end it; the next one, or the same one back again, goes on telling.

use std::time::Duration;

use dysvr_proto::wire::operator::RolloutRequest;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::connect::Controllers;
use super::exit::Failure;
use super::output::Output;
use super::progress::{self, Progress};
use super::view::{Outcome, Rollout};

/// So long may no controller be there before following is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts to find one.
const PAUSE: Duration = Duration::from_millis(500);

/// The rollout to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The newest one.
    Newest,
    /// As the operator says.
    Named(u64),
    /// One that this command has started: it is there, though its controller may go away at any moment.
    Started(u64),
}

/// Shows a rollout until it ends; an end without success is a failure. `timeout` 0 is none.
pub async fn follow(
    controllers: &mut Controllers,
    output: Output,
    which: Which,
    timeout: Duration,
) -> Result<Rollout, Failure> {
    let mut shown = if output.terminal { Shown::Bars(Bars::default()) } else { Shown::Lines(Progress::default()) };
    let ended = if timeout.is_zero() {
        until_end(controllers, output, which, &mut shown).await
    } else {
        match tokio::time::timeout(timeout, until_end(controllers, output, which, &mut shown)).await {
            Ok(ended) => ended,
            Err(_) => {
                Err(Failure::Unreachable(format!("timed out after {timeout:?} waiting for the rollout; it goes on")))
            }
        }
    };
    shown.finish();
    let rollout = ended?;
    match rollout.outcome() {
        Some(Outcome::Unsuccessful) => Err(Failure::Failed(progress::verdict(&rollout))),
        _ => {
            output.line(&progress::verdict(&rollout))?;
            Ok(rollout)
        }
    }
}

/// The rollout that is followed, and how much is put up with on the way.
struct Following {
    /// 0 until the newest one is known.
    id: u64,
    /// It has been seen, so that a controller that is not there is worth waiting for.
    exists: bool,
    /// Since when there has been no word of it.
    silent_since: Option<Instant>,
}

async fn until_end(
    controllers: &mut Controllers,
    output: Output,
    which: Which,
    shown: &mut Shown,
) -> Result<Rollout, Failure> {
    let (id, exists) = match which {
        Which::Newest => (0, false),
        Which::Named(id) => (id, false),
        Which::Started(id) => (id, true),
    };
    let mut following = Following { id, exists, silent_since: None };
    loop {
        let failure = match watch(controllers, output, &mut following, shown).await {
            Ok(Some(rollout)) => return Ok(rollout),
            Ok(None) => Failure::Unreachable("the controller keeps closing the stream".into()),
            Err(failure) if failure.code() == super::exit::UNREACHABLE && following.exists => failure,
            Err(failure) => return Err(failure),
        };
        controllers.leave();
        if following.silent_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            return Err(failure);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One stream, from one controller: `None` when it ended before the rollout did.
async fn watch(
    controllers: &mut Controllers,
    output: Output,
    following: &mut Following,
    shown: &mut Shown,
) -> Result<Option<Rollout>, Failure> {
    let request = RolloutRequest { id: following.id };
    let mut stream = controllers.read(async |mut client| client.watch_rollout(request).await).await?;
    while let Some(rollout) = stream.message().await.map_err(|status| controllers.lost(status))? {
        let rollout = Rollout::from(rollout);
        // Once it has a number: the newest may be another one after a reconnect.
        *following = Following { id: rollout.rollout, exists: true, silent_since: None };
        shown.show(output, &rollout)?;
        if rollout.outcome().is_some() {
            return Ok(Some(rollout));
        }
    }
    Ok(None)
}

enum Shown {
    Lines(Progress),
    Bars(Bars),
}

impl Shown {
    fn show(&mut self, output: Output, rollout: &Rollout) -> Result<(), Failure> {
        match self {
            Self::Lines(progress) => progress.lines(rollout).iter().try_for_each(|line| output.line(&line.text)),
            Self::Bars(bars) => {
                bars.show(output, rollout);
                Ok(())
            }
        }
    }

    fn finish(self) {
        if let Self::Bars(bars) = self {
            bars.finish();
        }
    }
}

/// One bar per wave, a title above them, and failures above that.
#[derive(Default)]
struct Bars {
    screen: MultiProgress,
    progress: Progress,
    title: Option<ProgressBar>,
    waves: Vec<ProgressBar>,
}

impl Bars {
    fn show(&mut self, output: Output, rollout: &Rollout) {
        for line in self.progress.lines(rollout).into_iter().filter(|line| line.failure) {
            let _ = self.screen.println(line.text); // a terminal that is gone is noticed by the last line
        }
        let title =
            self.title.get_or_insert_with(|| self.screen.add(ProgressBar::new_spinner().with_style(style("{msg}"))));
        title.set_message(progress::verdict(rollout));
        title.tick();
        for (index, wave) in progress::screen(rollout).into_iter().enumerate() {
            if index == self.waves.len() {
                let bar = if output.color { "{bar:30.green/dim}" } else { "{bar:30}" };
                let template = format!("  {{prefix}} {bar} {{pos}}/{{len}} {{msg}}");
                self.waves.push(self.screen.add(ProgressBar::new(wave.length).with_style(style(&template))));
            }
            let bar = &self.waves[index];
            bar.set_length(wave.length);
            bar.set_position(wave.position);
            bar.set_prefix(wave.label);
            bar.set_message(wave.message);
        }
    }

    /// Leaves the bars on the screen as they were last.
    fn finish(self) {
        self.waves.iter().for_each(ProgressBar::abandon);
        if let Some(title) = self.title {
            title.finish_and_clear();
        }
    }
}

/// A template of our own is well-formed; the default one is what remains otherwise.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
