//! When to look, and what a look is worth, as a pure machine.
//!
//! What is equal is believed at once. A difference is believed when two looks in a row find the same one and no task and
//! no reload came in between: whoever changes the configuration writes files first and tells the master afterwards, so one
//! look may well fall between the two.

use std::collections::VecDeque;
use std::time::Duration;

use super::finding::{Finding, Outcome};

/// From a look that found a difference to the one that confirms it: longer than it takes to write a task's files and its
/// line.
pub const AGAIN: Duration = Duration::from_secs(1);
/// How long looks must have settled nothing, and how many, before that is said.
pub const UNSETTLED: (Duration, u32) = (Duration::from_secs(60), 5);
/// A look may take this long. It runs at the lowest priority there is, so that a busy machine may starve it.
pub const LIMIT: Duration = Duration::from_secs(600);
/// Looks that nobody asked for take at most one part in so many of a processor, whatever the interval and however often
/// tasks make them worthless.
pub const SHARE: u32 = 50;

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Somebody wants to know; the number is in the finding that answers.
    Asked(u32),
    /// A task or a reload begins: what is looked at changes.
    Disturbed,
    /// A look has ended; whether a task waits in the task file.
    Found(Box<Finding>, bool),
    /// Only the clock has moved; whether a look may begin now.
    Tick(bool),
}

/// What the shell must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Fork a child that looks; `true`: somebody waits for it.
    Look(bool),
    /// End the child that looks.
    Kill,
    /// Say what was found.
    Conclude(Box<Finding>),
}

/// A look under way.
#[derive(Clone, Copy, Debug)]
struct Look {
    deadline: Duration,
    disturbed: bool,
    /// How many of `asked` it answers: those that were there when it began.
    answers: usize,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Machine {
    every: Option<Duration>,
    next: Option<Duration>,
    asked: Vec<u32>,
    look: Option<Look>,
    /// The difference that the last look found.
    suspicion: Option<u128>,
    /// When the first look ended of those that settled nothing, and how many there were.
    unsettled: Option<(Duration, u32)>,
    effects: VecDeque<Effect>,
}

impl Machine {
    /// Sets the interval between looks, `None` for none. Who has asked waits for no interval.
    pub fn set_interval(&mut self, now: Duration, every: Option<Duration>) {
        if self.every != every {
            self.every = every;
            if self.asked.is_empty() {
                self.next = every.map(|every| now + every);
            }
        }
    }

    /// Takes in what has happened.
    pub fn handle(&mut self, now: Duration, input: Input) {
        match input {
            Input::Asked(number) => {
                self.asked.push(number);
                // A suspicion is confirmed at its time.
                if self.suspicion.is_none() {
                    self.next = Some(now);
                }
            }
            Input::Disturbed => {
                self.suspicion = None;
                if let Some(look) = &mut self.look {
                    look.disturbed = true;
                }
            }
            Input::Found(finding, waits) => {
                if let Some(look) = self.look.take() {
                    self.found(now, look, finding, waits);
                }
            }
            Input::Tick(free) => self.tick(now, free),
        }
    }

    /// What to do next, until there is nothing.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Tick`] is due, if ever.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.look.map_or(self.next, |look| Some(look.deadline))
    }

    /// Whether a look is under way.
    pub fn is_looking(&self) -> bool {
        self.look.is_some()
    }

    fn tick(&mut self, now: Duration, free: bool) {
        match self.look {
            Some(look) if now >= look.deadline => {
                self.look = None;
                self.effects.push_back(Effect::Kill);
                let text = format!("it did not end within {} s", LIMIT.as_secs());
                self.conclude(now, look, Box::new(Finding::unknown(text)));
            }
            None if free && self.next.is_some_and(|next| now >= next) => {
                self.next = None;
                self.look = Some(Look { deadline: now + LIMIT, disturbed: false, answers: self.asked.len() });
                self.effects.push_back(Effect::Look(!self.asked.is_empty()));
            }
            _ => {}
        }
    }

    fn found(&mut self, now: Duration, look: Look, finding: Box<Finding>, waits: bool) {
        if matches!(finding.outcome, Outcome::Equal | Outcome::Unknown) {
            return self.conclude(now, look, finding);
        }
        let doubtful = look.disturbed || waits;
        if !doubtful && self.suspicion == Some(finding.fingerprint()) {
            return self.conclude(now, look, finding);
        }
        self.suspicion = (!doubtful).then(|| finding.fingerprint());
        let (since, looks) = self.unsettled.get_or_insert((now, 0));
        *looks += 1;
        if now >= *since + UNSETTLED.0 && *looks >= UNSETTLED.1 {
            let text = "tasks or files change all the time: no two looks saw the same";
            return self.conclude(now, look, Box::new(Finding::unknown(text)));
        }
        let pause = if doubtful && self.asked.is_empty() { finding.cost * SHARE } else { AGAIN };
        self.next = Some(now + pause.max(AGAIN));
    }

    fn conclude(&mut self, now: Duration, look: Look, mut finding: Box<Finding>) {
        self.suspicion = None;
        self.unsettled = None;
        finding.asked = self.asked.drain(..look.answers).collect();
        let pause = self.every.map(|every| every.max(finding.cost * SHARE));
        self.next = if self.asked.is_empty() { pause.map(|pause| now + pause) } else { Some(now) };
        self.effects.push_back(Effect::Conclude(finding));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn who_asks_before_the_interval_is_known_does_not_wait_for_it() {
        for every in [None, Some(MINUTE)] {
            let mut machine = Machine::default();
            machine.handle(at(5), Input::Asked(1));
            machine.set_interval(at(5), every);
            assert_eq!(machine.poll_timeout(), Some(at(5)));
            machine.handle(at(5), Input::Tick(true));
            assert_eq!(effects(&mut machine), "L");
        }
    }

    fn machine() -> Machine {
        let mut machine = Machine::default();
        machine.set_interval(at(0), Some(MINUTE));
        machine
    }

    fn equal() -> Box<Finding> {
        Box::new(Finding { outcome: Outcome::Equal, ..Finding::default() })
    }

    fn different(twin: u128) -> Box<Finding> {
        let twin = Some(crate::cycle::digest::Sum(twin));
        Box::new(Finding { outcome: Outcome::Different, twin, differences: 1, ..Finding::default() })
    }

    /// What is concluded, as a letter; the effects before it must be of the look alone.
    fn effects(machine: &mut Machine) -> String {
        let letter = |effect| match effect {
            Effect::Look(false) => 'l',
            Effect::Look(true) => 'L',
            Effect::Kill => 'k',
            Effect::Conclude(finding) => match finding.outcome {
                Outcome::Equal => '=',
                Outcome::Different => '!',
                Outcome::Unloadable => 'x',
                Outcome::Unknown => '?',
            },
        };
        std::iter::from_fn(|| machine.poll_effect()).map(letter).collect()
    }

    fn step(machine: &mut Machine, now: Duration, input: Input) -> String {
        machine.handle(now, input);
        effects(machine)
    }

    #[test]
    fn looks_at_the_interval_and_on_demand_and_believes_what_is_equal() {
        let mut m = machine();
        assert_eq!(step(&mut m, at(59), Input::Tick(true)), "");
        assert_eq!(step(&mut m, at(60), Input::Tick(false)), "", "not while a task runs");
        assert_eq!(step(&mut m, at(61), Input::Tick(true)), "l");
        assert_eq!(step(&mut m, at(61), Input::Tick(true)), "", "one at a time");
        assert_eq!(step(&mut m, at(62), Input::Asked(7)), "");
        m.handle(at(63), Input::Found(equal(), true));
        assert_eq!(m.poll_effect(), Some(Effect::Conclude(equal())), "the look began before it was asked for");
        assert_eq!(step(&mut m, at(63), Input::Tick(true)), "L");
        m.handle(at(64), Input::Found(equal(), false));
        assert!(matches!(m.poll_effect(), Some(Effect::Conclude(finding)) if finding.asked == [7]));
        assert_eq!(m.poll_timeout(), Some(at(124)));
        m.set_interval(at(64), None);
        assert_eq!(m.poll_timeout(), None);
    }

    #[test]
    fn a_difference_is_believed_when_it_is_seen_twice() {
        let mut m = machine();
        m.handle(at(60), Input::Tick(true));
        assert_eq!(step(&mut m, at(60), Input::Found(different(1), false)), "l");
        assert_eq!(step(&mut m, at(60), Input::Tick(true)), "");
        assert_eq!(step(&mut m, at(61), Input::Tick(true)), "l");
        assert_eq!(step(&mut m, at(61), Input::Found(different(2), false)), "", "another one");
        m.handle(at(62), Input::Tick(true));
        assert_eq!(step(&mut m, at(62), Input::Found(different(2), false)), "l!");
        m.handle(at(122), Input::Tick(true));
        m.handle(at(122), Input::Found(different(3), false));
        m.handle(at(123), Input::Tick(true));
        assert_eq!(step(&mut m, at(123), Input::Found(equal(), false)), "ll=", "files that were on their way");
    }

    #[test]
    fn what_happens_meanwhile_makes_a_difference_worthless() {
        for when in 0..3 {
            let mut m = machine();
            m.handle(at(60), Input::Tick(true));
            if when == 0 {
                m.handle(at(60), Input::Disturbed);
            }
            m.handle(at(60), Input::Found(different(1), false));
            if when == 1 {
                m.handle(at(60), Input::Disturbed);
            }
            m.handle(at(61), Input::Tick(true));
            m.handle(at(61), Input::Found(different(1), when == 2));
            assert_eq!(effects(&mut m), "ll", "{when}");
            m.handle(at(62), Input::Tick(true));
            m.handle(at(62), Input::Found(different(1), false));
            m.handle(at(63), Input::Tick(true));
            m.handle(at(63), Input::Found(different(1), false));
            assert_eq!(effects(&mut m), if when == 2 { "ll!" } else { "l!" }, "{when}");
        }
    }

    #[test]
    fn a_look_that_hangs_or_settles_nothing_is_said() {
        let mut m = machine();
        m.handle(at(60), Input::Asked(1));
        assert_eq!(step(&mut m, at(60), Input::Tick(true)), "L");
        assert_eq!(step(&mut m, at(60) + LIMIT, Input::Tick(true)), "k?");
        assert_eq!(step(&mut m, at(700), Input::Found(equal(), false)), "", "too late");
        let mut m = machine();
        let mut said = String::new();
        for n in 60..200 {
            m.handle(at(n), Input::Tick(true));
            m.handle(at(n), Input::Found(different(1), true));
            said += &effects(&mut m);
        }
        assert_eq!(said.find('?'), Some(1 + UNSETTLED.0.as_secs() as usize), "{said}");
        // Two that are long apart are not all the time.
        let mut m = machine();
        let said: String = (1..10)
            .map(|n| {
                m.handle(at(n * 200), Input::Tick(true));
                step(&mut m, at(n * 200), Input::Found(Box::new(Finding { cost: at(3), ..*different(1) }), true))
            })
            .collect();
        assert_eq!(said.find('?'), Some(UNSETTLED.1 as usize), "{said}");
    }

    #[test]
    fn what_is_costly_comes_less_often() {
        let mut m = machine();
        m.handle(at(60), Input::Tick(true));
        let finding = Finding { cost: at(3), ..*equal() };
        m.handle(at(65), Input::Found(Box::new(finding), false));
        assert_eq!(m.poll_timeout(), Some(at(65 + 150)));
        // So does what tasks make worthless, but not for who waits, nor what a second look has to confirm.
        for (asks, waits, then) in [(false, true, 150), (true, true, 1), (false, false, 1)] {
            let mut m = machine();
            m.handle(at(60), Input::Tick(true));
            if asks {
                m.handle(at(61), Input::Asked(1));
            }
            m.handle(at(65), Input::Found(Box::new(Finding { cost: at(3), ..*different(1) }), waits));
            assert_eq!(m.poll_timeout(), Some(at(65 + then)), "{asks} {waits}");
        }
    }
}
