use dysvr_conf::model::{self, ListenAddr, OrderStep, Peer, Upstream, UpstreamRef};

use super::*;
use crate::cycle::SocketOptions;
use crate::cycle::listener::DEFAULT;

fn outline() -> Outline {
    let file: Arc<Path> = Path::new("/etc/nginx/a.conf").into();
    let included: Arc<Path> = Path::new("/etc/nginx/listen.conf").into();
    let listen = |addr: ListenAddr, file: &Arc<Path>| model::Listen {
        addr,
        default_server: false,
        backlog: None,
        reuseport: false,
        ipv6only: None,
        ssl: false,
        place: Place { file: Arc::clone(file), line: 4 },
    };
    let inet = ListenAddr::Inet("[::1]:443".parse().unwrap());
    let peer = Peer {
        addr: ListenAddr::Unix("/run/peer".into()),
        name: "unix:/run/peer".into(),
        weight: 1,
        max_fails: 1,
        fail_timeout: 10,
        backup: false,
        down: false,
    };
    let implicit = Upstream {
        name: "unix:/run/peer:".into(),
        place: Place { file: Arc::clone(&file), line: 9 },
        order: OrderKey::default(),
        peers: [peer].into(),
        keepalive: None,
        digest: Digest::of(b"u"),
    };
    Outline {
        vsvc_id: Some(VsvcId(7)),
        place: Place { file: Arc::clone(&file), line: 3 },
        order: OrderKey(
            [OrderStep { offset: 9, file: Some(Arc::clone(&file)) }, OrderStep { offset: 300, file: None }].into(),
        ),
        listens: [
            model::Listen { ssl: true, backlog: Some(5), ..listen(inet.clone(), &file) },
            model::Listen { default_server: true, ..listen(ListenAddr::Unix("/run/x".into()), &included) },
            model::Listen { reuseport: true, ipv6only: Some(false), ..listen(inet, &file) },
        ]
        .into(),
        names: [
            ServerName::Exact("a.example".into()),
            ServerName::Leading("b.example".into()),
            ServerName::Regex { regex: Regex::new("^c", true).unwrap(), groups: [(1, 0)].into() },
            ServerName::Exact("".into()),
        ]
        .into(),
        variables: ["v".into()].into(),
        uses: [Use::Map(3), Use::Named("n".into())].into(),
        upstreams: [UpstreamRef::Named("u".into()), UpstreamRef::Implicit(Arc::new(implicit))].into(),
        digest: Digest::of(b"x"),
    }
}

#[test]
fn what_is_written_is_read() {
    let outline = outline();
    let stamp = Stamp { task_id: Some(u64::MAX), revision: None };
    let text = [Piece::Own(b"server {"), Piece::File(77), Piece::Own(b"}")];
    let bytes = write(&outline, stamp, true, &text);
    let record = Record(&bytes);
    assert_eq!(record.check(), Ok(()));
    assert_eq!(record.outline().unwrap(), outline);
    assert_eq!(record.place().unwrap(), outline.place);
    assert_eq!(record.file(), files::name(&outline.place.file));
    assert_eq!((record.id(), record.digest(), record.stamp()), (outline.vsvc_id, outline.digest, stamp));
    assert!(record.is_pinned());
    assert_eq!(record.order(), order_bytes(&outline.order));
    let names: Vec<&str> = (0..5).map(|index| record.name(index)).collect();
    assert_eq!(names, ["a.example", "b.example", "", "", ""]);
    let kinds: Vec<NameKind> = record.names().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [NameKind::Exact, NameKind::Leading, NameKind::Regex, NameKind::Exact]);
    assert_eq!(record.regexes(&mut Interner::default()), Ok(vec![(2, Regex::new("^c", true).unwrap())]));
    assert_eq!(record.uses(), (outline.uses.to_vec(), vec!["v"]));
    let names: Vec<Option<&str>> = record.upstreams().map(Used::named).collect();
    assert_eq!(names, [Some("u"), None]);
    let listens = record.listens().map(|listen| (listen.addr.clone(), listen.options())).collect::<Vec<_>>();
    let options = |backlog, reuseport, ipv6only| Some(SocketOptions { backlog, reuseport, ipv6only });
    let expected = [options(5, false, true), None, options(DEFAULT.backlog, true, false)];
    assert_eq!(listens, outline.listens.iter().map(|it| it.addr.clone()).zip(expected).collect::<Vec<_>>());
    assert_eq!(record.pieces().collect::<Result<Vec<_>, _>>().unwrap(), text);
}

#[test]
fn files_of_a_text_get_other_numbers() {
    let text = [Piece::Own(b"server {"), Piece::File(0), Piece::File(1), Piece::Own(b"}"), Piece::File(0)];
    let mut bytes = write(&outline(), Stamp::default(), false, &text);
    set_files(&mut bytes, |index| 700 + index);
    let given = [Piece::Own(b"server {"), Piece::File(700), Piece::File(701), Piece::Own(b"}"), Piece::File(700)];
    assert_eq!(Record(&bytes).pieces().collect::<Result<Vec<_>, _>>().unwrap(), given);
    assert_eq!(Record(&bytes).outline().unwrap(), outline());
}

#[test]
fn a_record_that_has_lost_its_end_is_told_from_a_whole_one() {
    let bytes = write(&outline(), Stamp::default(), false, &[]);
    assert!((0..bytes.len()).all(|length| Record(&bytes[..length]).check().is_err()));
    // Its text, too, when it is asked for.
    let bytes = write(&outline(), Stamp::default(), false, &[Piece::Own(b"server {}"), Piece::File(7)]);
    let begin = bytes.len() - 2 * 5 - b"server {}".len();
    let whole = |length: usize| Record(&bytes[..length]).pieces().all(|piece| piece.is_ok());
    let ends: Vec<usize> = (begin..=bytes.len()).filter(|length| whole(*length)).collect();
    assert_eq!(ends, [begin, bytes.len() - 5, bytes.len()]);
}

#[test]
fn damaged_bytes_are_no_record_and_no_panic() {
    let bytes = write(&outline(), Stamp::default(), false, &[Piece::Own(b"server {}")]);
    for length in 0..bytes.len() {
        look(&bytes[..length]);
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            look(&flipped);
        }
    }
}

fn look(bytes: &[u8]) {
    let record = Record(bytes);
    // An outline that can be read has all that the tables have.
    let names = record.names().count();
    assert!(record.outline().map_or(true, |outline| outline.names.len() == names));
    let _ = record.check();
    let _ = (
        record.listens().count(),
        record.upstreams().count(),
        record.uses(),
        record.regexes(&mut Interner::default()),
        record.place(),
    );
    let mut given = bytes.to_vec();
    set_files(&mut given, |number| number);
    assert_eq!(given, bytes);
    let _ = (record.id(), record.stamp(), record.order().len(), record.outline(), record.pieces().count());
    let _ = (0..5).map(|index| record.name(index).len()).sum::<usize>();
    let _ = (UpstreamRecord(bytes).name(), UpstreamRecord(bytes).upstream());
}

#[test]
fn orders_compare_as_their_bytes() {
    let key = |steps: &[(u32, Option<&str>)]| {
        let steps =
            steps.iter().map(|(offset, file)| OrderStep { offset: *offset, file: file.map(|it| Path::new(it).into()) });
        OrderKey(steps.collect())
    };
    let keys = [
        key(&[]),
        key(&[(1, None)]),
        key(&[(256, None)]),
        key(&[(1, Some("a")), (5, None)]),
        key(&[(1, Some("a")), (5, Some("b")), (1, None)]),
        key(&[(1, Some("ab")), (0, None)]),
        key(&[(1, Some("a b")), (0, None)]),
        key(&[(1, Some("a")), (70_000, None)]),
    ];
    for a in &keys {
        assert_eq!(order_of(&order_bytes(a)).as_ref(), Ok(a));
        for b in &keys {
            assert_eq!(a.cmp(b), order_bytes(a).cmp(&order_bytes(b)), "{a:?} {b:?}");
        }
    }
}
