//! In what two cycles differ, as text: for the one time when their digests do, so it may cost what it likes.
//!
//! Both sides are written in the same canonical form and shown as a difference of lines: `-` runs, `+` is in the files. A
//! vhost's text is made of its words' digest and of what was compiled from them, since the running side keeps no words.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{self, Write as _};
use std::hash::Hasher as _;
use std::rc::Rc;

use dysvr_conf::model::{ListenAddr, UpstreamRef, VsvcId};
use similar::TextDiff;

use super::digest::{Kind, Mixer, Sum, Who};
use super::{Cycle, Entry, Listener, UpstreamCell, Vhost};

/// Lines of one thing's difference that are shown.
const MAX_LINES: usize = 60;
/// Bytes of one side's text that are compared line by line.
const MAX_SIDE: usize = 64 << 10;

/// What differs.
#[derive(Debug, Default)]
pub struct Differences {
    /// Vhosts, upstreams, listeners and the rest that differ.
    pub count: u64,
    /// Both sides of each, as long as it fits.
    pub text: String,
    limit: usize,
}

impl Differences {
    fn add(&mut self, what: &str, running: &str, files: &str) {
        self.count += 1;
        if self.text.len() >= self.limit {
            return;
        }
        let _ = writeln!(self.text, "{what}");
        match (running, files) {
            ("", _) => self.text.push_str("- nothing\n"),
            (_, "") => self.text.push_str("+ nothing\n"),
            _ => {}
        }
        let diff = TextDiff::from_lines(running, files);
        let mut lines = 0;
        for group in diff.grouped_ops(2) {
            for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
                lines += 1;
                if lines <= MAX_LINES {
                    let _ = writeln!(self.text, "{}{}", change.tag(), change.value().trim_end_matches('\n'));
                }
            }
        }
        if lines > MAX_LINES {
            let _ = writeln!(self.text, "({} more lines)", lines - MAX_LINES);
        }
        if self.text.len() >= self.limit {
            let mut end = self.limit;
            while !self.text.is_char_boundary(end) {
                end -= 1;
            }
            self.text.truncate(end);
            self.text.push_str("\n(more differences are not shown)\n");
        }
    }
}

/// The differences between the cycle that runs and the one of the files, in at most about `limit` bytes. Beside the digests
/// what was compiled is compared, for up to `deep` vhosts that came by tasks: two equal texts that were merged differently.
pub fn differences(running: &Cycle, files: &Cycle, deep: usize, limit: usize) -> Differences {
    let mut found = Differences { limit, ..Differences::default() };
    if running.digest() != running.counted_digest() {
        let (kept, counted) = (running.digest(), running.counted_digest());
        found.add(
            "the digest of the running cycle, as kept and as counted",
            &format!("{kept}\n"),
            &format!("{counted}\n"),
        );
    }
    if running.conf.outside != files.conf.outside {
        found.add("outside vhosts and upstreams", cut(&running.conf.outside), cut(&files.conf.outside));
    }
    // What was compiled refers to maps and formats by their numbers, which in place are those of their arrival.
    let numbered = |cycle: &Cycle| cycle.definitions.borrow().numbered();
    let deep = if numbered(running) == numbered(files) { deep } else { 0 };
    vhosts(running, files, deep, &mut found);
    upstreams(running, files, &mut found);
    listeners(running, files, &mut found);
    let rest = |cycle: &Cycle| {
        let definitions = cycle.definitions.borrow().lines().concat();
        let exact = cycle.exact.borrow();
        let exact: BTreeMap<&ListenAddr, BTreeSet<&ListenAddr>> =
            exact.iter().map(|(wildcard, exact)| (wildcard, exact.iter().collect())).collect();
        let count = cycle.vhost_count();
        format!("{count} vhosts\nexact addresses of ports: {exact:?}\n{definitions}")
    };
    if rest(running) != rest(files) {
        found.add("maps, log formats and counts", &rest(running), &rest(files));
    }
    if found.count == 0 && running.counted_digest() != files.counted_digest() {
        let text = |cycle: &Cycle| format!("{}\n", cycle.counted_digest());
        found.add("the digests as a whole", &text(running), &text(files));
    }
    found
}

fn vhosts(running: &Cycle, files: &Cycle, mut deep: usize, found: &mut Differences) {
    let (ours, theirs) = (running.vhosts.borrow(), files.vhosts.borrow());
    let ids: BTreeSet<VsvcId> = ours.keys().chain(theirs.keys()).copied().collect();
    for id in ids {
        let (ours, theirs) = (ours.get(&id), theirs.get(&id));
        if let (Some(ours), Some(theirs)) = (ours, theirs)
            && ours.sum() == theirs.sum()
            && attached(running, ours)
        {
            let look = deep > 0 && ours.stamp().task_id.is_some();
            deep -= usize::from(look);
            if !look || compiled(running, ours) == compiled(files, theirs) {
                continue;
            }
        }
        let text =
            |cycle, vhost: Option<&Rc<Entry>>| vhost.map(|vhost| text_of_vhost(cycle, vhost)).unwrap_or_default();
        found.add(&format!("vhost {id}"), &text(running, ours), &text(files, theirs));
    }
    // Those without an id: one that changes is one less and one more.
    let nameless = |cycle: &Cycle| {
        let mut all: BTreeMap<[u8; 32], Vec<String>> = BTreeMap::new();
        cycle.each_vhost(|vhost| {
            if let Who::Nameless(digest) = Who::from(vhost) {
                all.entry(digest).or_default().push(text_of_vhost(cycle, vhost));
            }
        });
        all
    };
    let (ours, theirs) = (nameless(running), nameless(files));
    let keys: BTreeSet<[u8; 32]> = ours.keys().chain(theirs.keys()).copied().collect();
    let side = |all: &BTreeMap<[u8; 32], Vec<String>>, other: &BTreeMap<[u8; 32], Vec<String>>| {
        let texts = keys.iter().filter_map(|key| {
            let (one, two) = (all.get(key)?, other.get(key).map_or(0, Vec::len));
            (one.len() != two).then(|| one.concat())
        });
        texts.collect::<String>()
    };
    let (running, files) = (side(&ours, &theirs), side(&theirs, &ours));
    if running != files {
        found.add("vhosts without an id", cut(&running), cut(&files));
    }
}

/// Whether its upstreams are those that the cycle knows. What was not compiled has none of its own.
fn attached(cycle: &Cycle, vhost: &Entry) -> bool {
    let Some(vhost) = vhost.compiled() else { return true };
    vhost.conf.upstreams.iter().zip(&vhost.upstreams).all(|(used, cell)| match used {
        UpstreamRef::Named(name) => cycle.upstream(name).is_some_and(|known| Rc::ptr_eq(&known, cell)),
        UpstreamRef::Implicit(_) => true,
    })
}

fn upstreams(running: &Cycle, files: &Cycle, found: &mut Differences) {
    let (ours, theirs) = (running.upstreams.borrow(), files.upstreams.borrow());
    let hosts: BTreeSet<&str> = ours.hosts.keys().chain(theirs.hosts.keys()).map(|host| &**host).collect();
    let text = |count: Option<&u32>, host: &str| count.map(|n| format!("{host}: {n} uses\n")).unwrap_or_default();
    for host in hosts.into_iter().filter(|host| ours.hosts.get(*host) != theirs.hosts.get(*host)) {
        let (ours, theirs) = (ours.hosts.get(host), theirs.hosts.get(host));
        found.add("a host that is no upstream", &text(ours, host), &text(theirs, host));
    }
    let all = ours.named.values().chain(theirs.named.values());
    let names: BTreeSet<String> = all.map(|cell| cell.name().to_ascii_lowercase()).collect();
    for name in names {
        let (ours, theirs) = (ours.named.get(&name), theirs.named.get(&name));
        if ours.map(|cell| cell.sum()) != theirs.map(|cell| cell.sum()) {
            let text = |cell: Option<&Rc<UpstreamCell>>| cell.map(|cell| text_of_upstream(cell)).unwrap_or_default();
            found.add(&format!("upstream {name}"), &text(ours), &text(theirs));
        }
    }
}

fn listeners(running: &Cycle, files: &Cycle, found: &mut Differences) {
    let (ours, theirs) = (running.listeners.borrow(), files.listeners.borrow());
    let addrs: BTreeSet<&ListenAddr> = ours.keys().chain(theirs.keys()).collect();
    for addr in addrs {
        let (ours, theirs) = (ours.get(addr), theirs.get(addr));
        if ours.map(|listener| listener.summed()) == theirs.map(|listener| listener.summed()) {
            continue;
        }
        let what = format!("listener {addr}");
        let (Some(ours), Some(theirs)) = (ours, theirs) else {
            let text = |listener: Option<&Rc<Listener>>| {
                listener.map(|listener| head_of_listener(listener) + "(its names)\n").unwrap_or_default()
            };
            found.add(&what, &text(ours), &text(theirs));
            continue;
        };
        // Of a hundred thousand lines only those that the other side does not have.
        let (one, two) = (ours.names.borrow().lines(), theirs.names.borrow().lines());
        let only = |these: &[String], those: &[String]| {
            let mut those = those.iter().fold(HashMap::<&str, usize>::new(), |mut all, line| {
                *all.entry(line).or_default() += 1;
                all
            });
            let missing = these.iter().filter(|line| match those.get_mut(line.as_str()) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    false
                }
                _ => true,
            });
            missing.take(MAX_LINES).fold(String::new(), |text, line| text + line + "\n")
        };
        let (running, files) = (only(&one, &two), only(&two, &one));
        found.add(&what, &(head_of_listener(ours) + &running), &(head_of_listener(theirs) + &files));
    }
}

fn head_of_listener(listener: &Listener) -> String {
    let default = listener.default_server().map_or_else(|| "none".into(), |vhost| Who::from(&*vhost).to_string());
    format!("listen {} {:?}\ndefault server: {default}\n", listener.addr, listener.options())
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "vhost {id}"),
            Self::Nameless(digest) => {
                let short = digest.iter().take(6).fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
                write!(f, "a vhost without id ({short})")
            }
        }
    }
}

/// The canonical text of a vhost of a cycle.
fn text_of_vhost(cycle: &Cycle, entry: &Entry) -> String {
    let mut text = format!("{}: words {}\n", Who::from(entry), entry.digest());
    let Some(vhost) = cycle.compile(entry) else { return text + "it cannot be compiled\n" };
    let conf = &vhost.conf;
    for listen in &conf.listens {
        let default = if listen.default_server { " default_server" } else { "" };
        let _ = writeln!(text, "listen {}{default}", listen.addr);
    }
    for name in &conf.names {
        let _ = writeln!(text, "server_name {name}");
    }
    for used in &conf.upstreams {
        let _ = match used {
            UpstreamRef::Named(name) => writeln!(text, "upstream {name}"),
            UpstreamRef::Implicit(upstream) => writeln!(text, "upstream of its own: {}", upstream.name),
        };
    }
    if !attached(cycle, entry) {
        text.push_str("an upstream of it is one that the cycle knows no more\n");
    }
    let _ = write_compiled(&vhost, &mut text, true);
    cut(&text).to_owned()
}

/// What was compiled of a vhost, without places and addresses.
fn write_compiled(vhost: &Vhost, out: &mut dyn fmt::Write, lines: bool) -> fmt::Result {
    let conf = &vhost.conf;
    let parts: [(&str, &dyn fmt::Debug); 5] = [
        ("variables", &conf.variables),
        ("script", &conf.script),
        ("server", &conf.srv),
        ("location", &conf.loc),
        ("locations", &conf.locations),
    ];
    for (name, part) in parts {
        if lines {
            writeln!(out, "{name}: {part:#?}")?;
        } else {
            write!(out, "{name}: {part:?}")?;
        }
    }
    Ok(())
}

/// The hash of what is compiled of a vhost.
fn compiled(cycle: &Cycle, entry: &Entry) -> Option<Sum> {
    struct Sink(Mixer);
    impl fmt::Write for Sink {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let vhost = cycle.compile(entry)?;
    let mut sink = Sink(Mixer::new(Kind::Compiled as u64));
    let _ = write_compiled(&vhost, &mut sink, false);
    Some(sink.0.sum())
}

fn text_of_upstream(cell: &UpstreamCell) -> String {
    let conf = cell.conf();
    let mut text = format!("words {}\nused by {} vhost(s)\n", conf.digest, cell.users.get());
    for peer in &conf.peers {
        let _ = writeln!(text, "{peer:?}");
    }
    let _ = writeln!(text, "keepalive {:?}", conf.keepalive);
    text
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_SIDE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
