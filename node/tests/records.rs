//! Records of vhosts and upstreams in the region: what leaves the configuration leaves no room behind, what is compiled of
//! a record outlives it, and a worker follows by records alone.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use dysvr_conf::intern::Interner;
use dysvr_conf::load::LoadOptions;
use dysvr_conf::model::{ListenAddr, VsvcId};
use dysvr_conf::source::Memory;
use dysvr_node::cycle::{Cycle, Listener, load};
use dysvr_node::dysvr::message::{self, Message};
use dysvr_node::dysvr::update::change_of;
use dysvr_node::os::fork::{Fork, fork};
use dysvr_node::os::process::exit_now;
use dysvr_node::task::{Kind, TaskLine};
use dysvr_proto::id::TaskId;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

const VHOSTS: u64 = 100;

fn text(id: u64, port: u16, word: &str) -> String {
    format!(
        "upstream u{id} {{ server 10.0.0.1:{port}; }}\nserver {{ vsvc_id {id}; listen {port}; server_name v{id}.example;\n\
         include shared.conf;\nlocation / {{ proxy_pass http://u{id}; add_header X-Word {word}; }} }}\n"
    )
}

fn source() -> Memory {
    let mut source = Memory::default();
    source.insert("/c/nginx.conf", "events {} http { access_log off; include d/*.conf; server { listen 80; } }");
    source.insert("/c/shared.conf", format!("location /shared {{ return 200 {}; }}\n", "shared".repeat(50)));
    for id in 1..=VHOSTS {
        source.insert(format!("/c/d/{id}.conf"), text(id, 80, "first"));
    }
    source
}

fn cycle(source: &mut Memory) -> Cycle {
    let options =
        LoadOptions { conf: "/c/nginx.conf".into(), prefix: "/tmp".into(), globals: String::new(), privileged: true };
    Cycle::load(load(&options, source, &mut Interner::default()).unwrap()).unwrap()
}

/// One task; what it leaves is swept. Gives what workers are told of it, if that is all that they need.
fn change(cycle: &Cycle, source: &mut Memory, kind: Kind, id: u64, text: &str) -> Option<Vec<u8>> {
    let mut line = TaskLine::new(kind, TaskId(1), PathBuf::from("/run/dysvr_1.conf"));
    line.vsvc_ids.push(id);
    line.ups_ids.push(format!("u{id}"));
    let includes = if kind == Kind::Delete { String::new() } else { format!("include d/{id}.conf;") };
    source.insert(format!("/c/d/{id}.conf"), text);
    source.insert(&line.conf, includes);
    let change = change_of(&line, cycle, source, &mut Interner::default(), None).unwrap();
    let prepared = cycle.prepare(change).unwrap();
    assert!(prepared.is_light() || text.contains("listen 81"), "{text}");
    let told = prepared.is_light().then(|| message::encode_light(prepared.delta()));
    drop(cycle.commit(prepared));
    cycle.region().sweep();
    told
}

fn words(cycle: &Cycle, listener: &Listener, host: &str) -> String {
    let found = listener.find(cycle, host.as_bytes()).unwrap();
    format!("{:?} {:?}", found.vhost.conf.locations, found.vhost.upstreams[0].get().conf.peers)
}

fn port(port: u16) -> ListenAddr {
    ListenAddr::Inet(([0, 0, 0, 0], port).into())
}

#[test]
fn updates_leave_no_room_behind() {
    let mut source = source();
    let cycle = cycle(&mut source);
    let before = cycle.region().used();
    for round in 0..20 {
        for id in 1..=VHOSTS {
            change(&cycle, &mut source, Kind::Modify, id, &text(id, 80, &format!("round{:04}", round * id)));
        }
        assert_eq!(cycle.region().retired(), 0);
        let used = cycle.region().used();
        assert!(used <= before + VHOSTS as usize * 64, "{before} bytes became {used}");
    }
    for id in 1..=VHOSTS {
        change(&cycle, &mut source, Kind::Delete, id, "");
    }
    // The nameless vhost alone is left: neither those, nor the file that all included.
    assert!(cycle.region().used() < 2000, "{}", cycle.region().used());
    assert_eq!(cycle.digest(), cycle.counted_digest());
}

#[test]
fn a_vhost_is_compiled_when_it_is_asked_for_and_as_it_is_then() {
    let mut source = source();
    let cycle = cycle(&mut source);
    change(&cycle, &mut source, Kind::Modify, 7, &text(7, 80, "second"));
    let listener = cycle.listener(&port(80)).unwrap();
    let old = listener.find(&cycle, b"v7.example").unwrap().vhost;
    assert!(words(&cycle, &listener, "v7.example").contains("second"));
    assert!(words(&cycle, &listener, "v7.example").contains("shared"));
    change(&cycle, &mut source, Kind::Modify, 7, &text(7, 80, "third"));
    for id in 8..30 {
        change(&cycle, &mut source, Kind::Modify, id, &text(id, 80, "overwritten"));
    }
    assert!(words(&cycle, &listener, "v7.example").contains("third"));
    // Who has begun with it ends with it.
    assert!(format!("{:?}", old.conf.locations).contains("second"));
    assert_eq!(old.stamp.task_id, Some(1));
    // A quarantine holds before it is compiled as well as after.
    let entry = cycle.vhost(VsvcId(50)).unwrap();
    entry.quarantine(true);
    let vhost = listener.find(&cycle, b"v50.example").unwrap().vhost;
    assert!(vhost.quarantined.get());
    entry.quarantine(false);
    assert!(!vhost.quarantined.get());
}

#[test]
fn a_listener_that_has_closed_answers_as_it_did() {
    let mut source = source();
    let cycle = cycle(&mut source);
    change(&cycle, &mut source, Kind::Modify, 3, &text(3, 81, "moved"));
    let listener = cycle.listener(&port(81)).unwrap();
    change(&cycle, &mut source, Kind::Modify, 3, &text(3, 80, "back"));
    assert!(listener.is_closed());
    // Others take the room of its record.
    for id in 4..40 {
        change(&cycle, &mut source, Kind::Modify, id, &text(id, 80, "overwritten"));
    }
    assert!(words(&cycle, &listener, "v3.example").contains("moved"));
    assert!(words(&cycle, &listener, "v3.example").contains("shared"));
}

/// A worker forked from a master's process: does what it is told, one message after the other, then says whether `holds`.
fn worker(cycle: &Cycle, holds: impl FnOnce(&Cycle) -> bool) -> (PipeWriter, PipeReader, Pid) {
    let (told, tells) = std::io::pipe().unwrap();
    let (done, says) = std::io::pipe().unwrap();
    match fork().unwrap() {
        Fork::Parent(pid) => (tells, done, Pid::from_raw(pid)),
        Fork::Child => {
            drop((tells, done));
            let held = catch_unwind(AssertUnwindSafe(|| follow(cycle, told, says) && holds(cycle)));
            exit_now(i32::from(!held.unwrap_or(false)))
        }
    }
}

fn follow(cycle: &Cycle, mut told: PipeReader, mut says: PipeWriter) -> bool {
    cycle.region().confine().unwrap();
    let mut length = [0; 4];
    while told.read_exact(&mut length).is_ok() {
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        told.read_exact(&mut bytes).unwrap();
        let Ok(Message::Light(delta)) = Message::decode(&bytes) else { return false };
        drop(cycle.commit(cycle.prepare(delta.into()).unwrap()));
        says.write_all(&cycle.digest().0.to_le_bytes()).unwrap();
    }
    cycle.digest() == cycle.counted_digest()
}

#[test]
fn a_worker_follows_by_records_alone_and_what_has_closed_there_outlives_them() {
    let mut source = source();
    let cycle = cycle(&mut source);
    change(&cycle, &mut source, Kind::Modify, 3, &text(3, 81, "moved"));
    let closing = cycle.listener(&port(81)).unwrap();
    let (mut tells, mut done, pid) = worker(&cycle, |cycle| {
        let listener = cycle.listener(&port(80)).unwrap();
        let closed = words(cycle, &closing, "v3.example");
        assert!(closing.is_closed() && closed.contains("moved") && closed.contains("shared"), "{closed}");
        assert!(words(cycle, &listener, "v3.example").contains("back"));
        assert!(words(cycle, &listener, "v4.example").contains("overwritten"));
        assert!(words(cycle, &listener, "v99.example").contains("first"));
        // The first in the source has what nobody has.
        listener.find(cycle, b"v40.example").unwrap().vhost.conf.vsvc_id == Some(VsvcId(1))
    });
    let mut follow = |told: Option<Vec<u8>>| {
        let told = told.unwrap();
        tells.write_all(&(told.len() as u32).to_le_bytes()).unwrap();
        tells.write_all(&told).unwrap();
        let mut digest = [0; 16];
        done.read_exact(&mut digest).unwrap();
        assert_eq!(u128::from_le_bytes(digest), cycle.digest().0, "the worker serves something else");
    };
    follow(change(&cycle, &mut source, Kind::Modify, 3, &text(3, 80, "back")));
    // The master has no use for the closed listener: its record's room is what the next ones take.
    drop(closing);
    for id in 4..40 {
        follow(change(&cycle, &mut source, Kind::Modify, id, &text(id, 80, "overwritten")));
    }
    follow(change(&cycle, &mut source, Kind::Delete, 40, ""));
    // Small ones, until no hole is left.
    for id in 201..240 {
        let small = format!(
            "upstream u{id} {{ server 10.0.0.1; }} server {{ vsvc_id {id}; listen 80; server_name v{id}; return 204; }}"
        );
        follow(change(&cycle, &mut source, Kind::Add, id, &small));
    }
    drop(tells);
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
}

/// Two vhosts that share a name, two addresses of each, an explicit default server and one behind them.
#[test]
fn a_vhost_that_is_modified_where_it_stands_keeps_its_place_among_others() {
    fn texts(word: &str, line: &str) -> [String; 3] {
        let text = |id: u64, first: &str, names: &str| {
            format!(
                "upstream u{id} {{ server 10.0.0.1:80; }}\nserver {{ vsvc_id {id}; {line}listen 90 {first}; listen 91; \
                 server_name {names};\nlocation / {{ proxy_pass http://u{id}; add_header X-Word {word}; }} }}\n"
            )
        };
        [
            text(1, "", "a.example shared.example"),
            text(2, "default_server", "shared.example *.b.example"),
            text(3, "", "c.*"),
        ]
    }
    let files = |source: &mut Memory, texts: &[String]| {
        for (id, text) in (1..).zip(texts) {
            source.insert(format!("/c/d/{id}.conf"), text.clone());
        }
    };
    let mut source = Memory::default();
    source.insert("/c/nginx.conf", "events {} http { access_log off; include d/*.conf; }");
    files(&mut source, &texts("first", ""));
    let cycle = cycle(&mut source);
    let both = cycle.vhost(VsvcId(1)).unwrap();
    let conflicts = |cycle: &Cycle, source: &mut Memory, ids: &[u64]| {
        let mut line = TaskLine::new(Kind::Modify, TaskId(9), PathBuf::from("/run/dysvr_9.conf"));
        line.vsvc_ids = ids.to_vec();
        line.ups_ids = ids.iter().map(|id| format!("u{id}")).collect();
        source.insert(&line.conf, ids.iter().map(|id| format!("include d/{id}.conf;\n")).collect::<String>());
        let change = change_of(&line, cycle, source, &mut Interner::default(), None).unwrap();
        let committed = cycle.commit(cycle.prepare(change).unwrap());
        committed.conflicts
    };
    // In place of each other, one by one and both at once; a line that moves within the block changes no table.
    for (word, line, ids) in
        [("second", "", &[1][..]), ("third", "", &[2]), ("fourth", "", &[1, 2]), ("fifth", "\n", &[1, 2, 3])]
    {
        files(&mut source, &texts(word, line));
        let said = conflicts(&cycle, &mut source, ids);
        let name = |addr: &str| {
            format!("conflicting server name \"shared.example\" on 0.0.0.0:{addr}, ignored in /c/d/2.conf:2")
        };
        assert_eq!(said, [name("90"), name("91")], "{word}");
        assert_eq!(cycle.digest(), cycle.counted_digest(), "{word}");
        for (port_number, host, id) in [
            (90, "a.example", 1),
            (91, "shared.example", 1),
            (90, "x.b.example", 2),
            (90, "nobody", 2),
            (91, "nobody", 1),
            (91, "c.d", 3),
        ] {
            let listener = cycle.listener(&port(port_number)).unwrap();
            let found = listener.find(&cycle, host.as_bytes()).unwrap().vhost;
            assert_eq!(found.conf.vsvc_id, Some(VsvcId(id)), "{word}: {host}");
            let is_new = format!("{:?}", found.conf.locations).contains(word);
            assert_eq!(is_new, ids.contains(&id), "{word}: {host}");
        }
    }
    assert_eq!(cycle.digest(), self::cycle(&mut source).digest(), "as the files would start");
    assert!(!std::rc::Rc::ptr_eq(&both, &cycle.vhost(VsvcId(1)).unwrap()));
}
