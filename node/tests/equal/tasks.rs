//! Random tasks for a site.

use dysvr_node::task::Kind;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::site::{Names, Site, Task};
use super::{texts, tls};

/// Files of vhosts; each holds up to two.
const FILES: u64 = 10;

fn vhost_file(number: u64) -> String {
    format!("auto_vhost/v{number:02}.conf")
}

impl Site {
    /// Something that might be asked for next. Some of it is wrong.
    pub fn random_task(&self, rng: &mut StdRng) -> Task {
        match rng.random_range(0..12) {
            0 => self.upstream_task(rng),
            1 => self.include_task(rng),
            2 => self.renewal(rng),
            3 => self.definitions_task(rng),
            4 | 5 => self.set_task(rng),
            _ => self.vhost_task(rng),
        }
    }

    /// Adds, modifies or deletes the vhosts of one file, or of several.
    fn vhost_task(&self, rng: &mut StdRng) -> Task {
        let kind = [Kind::Add, Kind::Modify, Kind::Delete][rng.random_range(0..3)];
        let there = |number: &u64| self.files.contains_key(&vhost_file(*number));
        let mut fit: Vec<u64> = (0..FILES).filter(|number| there(number) != (kind == Kind::Add)).collect();
        let count = if rng.random_bool(0.2) { 3 } else { 1 };
        let mut task = Task::new(kind);
        for _ in 0..count {
            if fit.is_empty() {
                break;
            }
            let number = fit.swap_remove(rng.random_range(0..fit.len()));
            let old = self.files.get(&vhost_file(number));
            let new = (kind != Kind::Delete).then(|| {
                // As many vhosts as before: a modify neither adds nor deletes.
                let vhosts = old.map_or_else(|| rng.random_range(1..=2), |old| Names::of(old).vsvc.len());
                texts::vhosts(rng, number, vhosts, &self.definitions())
            });
            task.becomes(old.filter(|_| kind != Kind::Add), vhost_file(number), new);
        }
        if task.files.is_empty() {
            return self.set_task(rng);
        }
        task
    }

    /// Upstreams without vhosts: peers come, go and are weighted anew.
    fn upstream_task(&self, rng: &mut StdRng) -> Task {
        let number = rng.random_range(0..texts::SHARED_UPSTREAMS);
        let name = format!("auto_upstream/s{number}.conf");
        let old = self.files.get(&name);
        let kind = match old {
            None => Kind::Add,
            Some(_) if rng.random_bool(0.2) => Kind::Delete,
            Some(_) => Kind::Modify,
        };
        let new = (kind != Kind::Delete).then(|| texts::upstream(rng, &format!("shared{number}")));
        let mut task = Task::new(kind);
        task.becomes(old, name, new);
        task
    }

    /// Files that vhosts share become others: all vhosts that name one of them are made anew.
    fn shared_task(&self, files: Vec<(String, String)>) -> Option<Task> {
        let mut task = Task::new(Kind::Modify);
        let uses = |text: &str| files.iter().any(|(name, _)| text.contains(name));
        self.files.values().filter(|text| uses(text)).for_each(|text| task.names.add(Some(text)));
        task.files.extend(files.into_iter().map(|(name, text)| (name, Some(text))));
        (!task.names.vsvc.is_empty()).then_some(task)
    }

    fn include_task(&self, rng: &mut StdRng) -> Task {
        let number = rng.random_range(0..super::site::INCLUDES);
        let text = format!("add_header X-Common {number}-{};\n", rng.random_range(0..4));
        self.shared_task(vec![(texts::include_file(number), text)]).unwrap_or_else(|| self.upstream_task(rng))
    }

    /// A certificate, or the key of tickets, is replaced for all who have it.
    fn renewal(&self, rng: &mut StdRng) -> Task {
        self.shared_task(tls::renewed(rng)).unwrap_or_else(|| self.vhost_task(rng))
    }

    /// Maps and log formats without vhosts.
    fn definitions_task(&self, rng: &mut StdRng) -> Task {
        let mut task = Task::new(Kind::Set);
        self.define(rng, &mut task);
        let (_, new) = &task.files[0];
        let held = new.as_ref().map(|text| Names::of(text)).unwrap_or_default();
        // Add and modify where they say the same as a set.
        task.kind = match (self.files.contains_key(&task.files[0].0), new) {
            (false, _) => Kind::Add,
            (true, None) => Kind::Delete,
            (true, Some(_)) if held == task.names => Kind::Modify,
            (true, Some(_)) => Kind::Set,
        };
        task
    }

    fn define(&self, rng: &mut StdRng, task: &mut Task) {
        let number = rng.random_range(0..texts::DEFINITIONS);
        let name = format!("auto_map/d{number}.conf");
        let old = self.files.get(&name);
        let new = (old.is_none() || rng.random_bool(0.8)).then(|| texts::definitions(rng, number, &self.definitions()));
        task.becomes(old, name, new);
    }

    /// Any files become anything, as one change.
    fn set_task(&self, rng: &mut StdRng) -> Task {
        let mut task = Task::new(Kind::Set);
        let mut numbers: Vec<u64> = (0..FILES).collect();
        for _ in 0..rng.random_range(1..4) {
            let number = numbers.swap_remove(rng.random_range(0..numbers.len()));
            let old = self.files.get(&vhost_file(number));
            let new = (old.is_none() || rng.random_bool(0.6)).then(|| {
                let vhosts = rng.random_range(1..=2);
                texts::vhosts(rng, number, vhosts, &self.definitions())
            });
            task.becomes(old, vhost_file(number), new);
        }
        if rng.random_bool(0.15) {
            self.define(rng, &mut task);
        }
        task
    }
}

impl Task {
    /// A file becomes another one; the task names what stood and what stands in it.
    fn becomes(&mut self, old: Option<&String>, name: String, new: Option<String>) {
        self.names.add(old);
        self.names.add(new.as_ref());
        self.files.push((name, new));
    }
}
