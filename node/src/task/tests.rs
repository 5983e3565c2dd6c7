use std::path::PathBuf;

use dysvr_proto::id::{Revision, TaskId};
use dysvr_proto::status::Status;
use proptest::prelude::*;

use super::*;

/// The seed's own file, byte for byte: mark the blank at its end.
const SEED: &str = "type=0 conf=/usr/local/services/nginx_install-1.0/l7_nginx/common/dysvr_25208.conf vsvc_ids=131942 \
                    ups_ids=1074728 task_id=25208 status=I \n";

fn seed() -> TaskLine {
    let conf = PathBuf::from("/usr/local/services/nginx_install-1.0/l7_nginx/common/dysvr_25208.conf");
    TaskLine {
        vsvc_ids: vec![131942],
        ups_ids: vec!["1074728".into()],
        ..TaskLine::new(Kind::Add, TaskId(25208), conf)
    }
}

#[test]
fn reads_the_seeds_file_and_writes_it_back() {
    let file = TaskFile::parse(SEED.as_bytes()).unwrap();
    assert_eq!(file, TaskFile(vec![seed()]));
    assert_eq!(file.to_string(), SEED.replace(" \n", "\n"));
}

#[test]
fn what_a_line_may_say() {
    for (text, written) in [
        ("", ""),
        ("\n# a comment\n \t\n", ""),
        // server_type=0 is the default; keys come in any order; blanks and tabs separate.
        ("server_type=0\tstatus=R  task_id=7 conf=/x type=2", "type=2 conf=/x task_id=7 status=R\n"),
        ("type=1 conf=/x ports=80,443 task_id=7 status=L", "type=1 conf=/x ports=80,443 task_id=7 status=L\n"),
        // Unknown words stay where they stood, even between keys that the answer adds.
        (
            "ticket=A-1 type=0 server_type=0 a=1 conf=/x b=\"two words\" task_id=7 c= status=I d=4",
            "ticket=A-1 type=0 a=1 conf=/x b=\"two words\" task_id=7 c=\"\" status=I d=4\n",
        ),
        (
            r#"type=0 conf="/a b/c" task_id=7 status=F reason="no \"x\" in C:\\y\n\x01é""#,
            "type=0 conf=\"/a b/c\" task_id=7 status=F reason=\"no \\\"x\\\" in C:\\\\y\\n\\x01é\"\n",
        ),
        (
            "type=0 conf=/x mode=reload revision=12 task_id=7 status=D master_us=81 workers=11:40:9,12:41:8\n\
             type=2 conf=/dysvr_8.conf task_id=8 status=I",
            "type=0 conf=/x mode=reload revision=12 task_id=7 status=D master_us=81 workers=11:40:9,12:41:8\n\
             type=2 conf=/dysvr_8.conf task_id=8 status=I\n",
        ),
    ] {
        let file = TaskFile::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(file.to_string(), written, "{text}");
        assert_eq!(TaskFile::parse(written.as_bytes()).unwrap(), file, "{text}");
    }
}

#[test]
fn what_is_refused_and_how() {
    let ok = "type=0 conf=/x task_id=7 status=I";
    for (text, error) in [
        ("type=0 conf=/x task_id=7".to_owned(), "status is missing in line 1"),
        ("conf=/x task_id=7 status=I".into(), "type is missing in line 1"),
        ("type=0 task_id=7 status=I".into(), "conf is missing in line 1"),
        ("type=0 conf=/x status=I".into(), "task_id is missing in line 1"),
        (format!("# head\n\n{ok} type=0"), "duplicate key type in line 3"),
        (format!("{ok} a=1 a=2"), "duplicate key a in line 1"),
        (
            "type=4 conf=/x task_id=7 status=I".into(),
            "type=4 is none of 0 (add), 1 (delete), 2 (modify), 3 (set) in line 1",
        ),
        (format!("{ok} server_type=1"), "server_type=1 is not supported: only 0 (http) is in line 1"),
        ("type=0 conf=x task_id=7 status=I".into(), "conf=x is not an absolute path in line 1"),
        ("type=0 conf=/x task_id=0 status=I".into(), "task_id=0 is not a task in line 1"),
        (
            "type=0 conf=/dysvr_8.conf task_id=7 status=I".into(),
            "conf=dysvr_8.conf does not belong to task_id=7 in line 1",
        ),
        ("type=0 conf=/x task_id=7 status=X".into(), "unknown status X (U), none of I, R, L, F, D in line 1"),
        ("type=0 conf=/x task_id=7 status=U".into(), "unknown status U (U), none of I, R, L, F, D in line 1"),
        ("type=0 conf=/x task_id=7 status=F".into(), "status=F has no reason in line 1"),
        ("type=0 conf=/x task_id=7 status=F reason=\"\"".into(), "status=F has an empty reason in line 1"),
        (format!("{ok} reason=x"), "status=I has a reason, which only F has in line 1"),
        (
            format!("{ok} vsvc_ids=1,,2"),
            "vsvc_ids has an empty item (an empty list is written by leaving the key out) in line 1",
        ),
        (format!("{ok} vsvc_ids=1,2,1"), "vsvc_ids has 1 twice in line 1"),
        (format!("{ok} vsvc_ids=01"), "vsvc_ids=01 is not a number or too large in line 1"),
        (
            format!("{ok} vsvc_ids=18446744073709551616"),
            "vsvc_ids=18446744073709551616 is not a number or too large in line 1",
        ),
        (format!("{ok} ports=65536"), "ports=65536 is not a number or too large in line 1"),
        (format!("{ok} mode=x"), "mode=x is none of in_place, reload in line 1"),
        (format!("{ok} workers=1:2"), "workers has 1:2, which is not PID:PREPARE_US:COMMIT_US in line 1"),
        (format!("{ok} word"), "\"word\" is not key=value in line 1"),
        (format!("{ok} =x"), "\"=x\" is not key=value in line 1"),
        (format!("{ok} a=b\"c"), "the value of a has a '\\\"' outside quotes in line 1"),
        (format!("{ok} a=\"b"), "the value of a has no closing quote in line 1"),
        (format!("{ok} a=\"b\"c"), "the value of a goes on behind its closing quote in line 1"),
        (format!("{ok} a=\"\\q\""), "the value of a has an unknown escape in line 1"),
        (format!("{ok} a=\"\\x8\""), "the value of a has a bad \\x escape in line 1"),
        (format!("{ok}\r"), "the value of status has a '\\r' outside quotes in line 1"),
        (format!("{ok}\n{ok}"), "task_id=7 follows task_id=7 in line 2"),
    ] {
        let refused = TaskFile::parse(text.as_bytes()).expect_err(&text);
        assert_eq!(refused.to_string(), error, "{text}");
    }
    assert_eq!(TaskFile::parse(b"\n\xff").unwrap_err().to_string(), "a byte that is not UTF-8 in line 2");
}

/// What the master can check against the configuration: a task that differs from the true one in any of these does not
/// get through. (A delete's configuration is empty, an add's and a modify's vhosts are there or not, and the ids must be
/// those of the configuration file, which must exist.)
fn caught_by_the_master(true_task: &TaskLine, task: &TaskLine) -> bool {
    task.kind != true_task.kind
        || task.conf != true_task.conf
        || task.vsvc_ids != true_task.vsvc_ids
        || task.ups_ids != true_task.ups_ids
        || task.ports != true_task.ports
}

/// A line with every key that an agent writes.
fn full() -> TaskLine {
    TaskLine {
        vsvc_ids: vec![131942, 131943],
        ups_ids: vec!["1074728".into(), "a.b".into()],
        ports: vec![80, 443],
        revision: Some(Revision(12)),
        mode: Some(Mode::InPlace),
        ..seed()
    }
}

#[test]
fn every_truncation_is_refused_or_the_whole_task() {
    for task in [seed(), full()] {
        let text = format!("{task} \n");
        for end in 0..text.len() {
            match TaskFile::parse(&text.as_bytes()[..end]) {
                Ok(TaskFile(tasks)) if tasks.is_empty() => assert!(text[..end].trim().is_empty()),
                Ok(TaskFile(tasks)) => assert_eq!(tasks, std::slice::from_ref(&task), "cut at {end}"),
                Err(e) => assert_eq!(e.line, 1),
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_refused_or_caught() {
    for task in [seed(), full()] {
        let text = format!("{task} \n");
        for bit in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(TaskFile(tasks)) = TaskFile::parse(&bytes) else { continue };
            let [flipped] = tasks.as_slice() else { panic!("bit {bit}: {} tasks", tasks.len()) };
            let harmless = TaskLine { extra: vec![], revision: task.revision, mode: task.mode, ..flipped.clone() };
            // A flip in `revision` or in the word `mode` (in place is the default) is all that neither side can see.
            assert!(caught_by_the_master(&task, flipped) || harmless == task, "bit {bit}: {flipped}");
            assert_eq!(flipped.status, Status::Init, "bit {bit}");
            assert_eq!(flipped.task_id, task.task_id, "bit {bit}");
        }
    }
}

#[test]
fn a_verdict_does_not_flip_into_the_other() {
    let mut failed = seed();
    failed.fail("no");
    let mut done = seed();
    done.set_status(Status::Done);
    for (task, other) in [(failed, Status::Done), (done, Status::Failed)] {
        let text = task.to_string();
        for bit in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(TaskFile(tasks)) = TaskFile::parse(&bytes) {
                assert!(tasks.iter().all(|t| t.status != other), "bit {bit}");
            }
        }
    }
}

fn any_task() -> impl Strategy<Value = TaskLine> {
    let kind = prop_oneof![Just(Kind::Add), Just(Kind::Delete), Just(Kind::Modify), Just(Kind::Set)];
    let mode = proptest::option::of(prop_oneof![Just(Mode::InPlace), Just(Mode::Reload)]);
    let status = prop_oneof![
        Just((Status::Init, None)),
        Just((Status::Ready, None)),
        Just((Status::Loading, None)),
        Just((Status::Done, None)),
        "[ -~\n\t\r\u{1}é]{1,40}".prop_map(|reason| (Status::Failed, Some(reason))),
    ];
    let time = (1u32.., any::<u64>(), any::<u64>()).prop_map(|(pid, prepare_us, commit_us)| WorkerTime {
        pid,
        prepare_us,
        commit_us,
    });
    let ids = (
        proptest::collection::hash_set(any::<u64>(), 0..5),
        proptest::collection::hash_set("[a-zA-Z0-9._\"-]{1,12}", 0..5),
        proptest::collection::hash_set(any::<u16>(), 0..5),
    );
    (
        kind,
        "/[ -~]{0,30}",
        ids,
        mode,
        proptest::option::of(any::<u64>()),
        1u64..,
        status,
        proptest::option::of(any::<u64>()),
        proptest::collection::vec(time, 0..4),
        ".{0,10}",
    )
        .prop_map(|(kind, conf, ids, mode, revision, task_id, (status, reason), master_us, workers, extra)| {
            TaskLine {
                vsvc_ids: ids.0.into_iter().collect(),
                ups_ids: ids.1.into_iter().collect(),
                ports: ids.2.into_iter().collect(),
                mode,
                revision: revision.map(Revision),
                status,
                reason,
                master_us,
                workers: workers.into_iter().enumerate().map(|(i, w)| WorkerTime { pid: i as u32 + 1, ..w }).collect(),
                extra: vec![Extra {
                    after: Some(Key::TaskId),
                    key: "x".into(),
                    value: extra.replace(char::is_control, ""),
                }],
                ..TaskLine::new(kind, TaskId(task_id), PathBuf::from(conf))
            }
        })
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_back(task in any_task()) {
        let text = TaskFile(vec![task.clone()]).encode();
        prop_assert_eq!(TaskFile::parse(&text), Ok(TaskFile(vec![task])));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = TaskFile::parse(&bytes);
    }

    #[test]
    fn no_line_makes_it_panic(text in "(type|conf|vsvc_ids|status|reason|task_id|x)?[= \"\\\\,:0-9/IRLFD\n]{0,30}") {
        let _ = TaskFile::parse(text.as_bytes());
    }
}
