use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

use dysvr_conf::intern::Interner;
use dysvr_conf::load::LoadOptions;
use dysvr_conf::source::Memory;

use super::*;

fn cycle(listens: &[String]) -> Cycle {
    let servers: String = listens.iter().map(|listen| format!("server {{ listen {listen}; }}")).collect();
    let mut source = Memory::default();
    source.insert("/c/nginx.conf", format!("events {{}} http {{ access_log off; {servers} }}"));
    let options =
        LoadOptions { conf: "/c/nginx.conf".into(), prefix: "/c".into(), globals: String::new(), privileged: true };
    Cycle::load(crate::cycle::load(&options, &mut source, &mut Interner::default()).unwrap()).unwrap()
}

/// What a master does with a cycle that it loads.
fn serve(sockets: &mut Sockets, cycle: &Cycle, workers: usize) -> Result<(), String> {
    let opened = sockets.open(&cycle.sockets(), workers)?;
    sockets.take_over(opened);
    sockets.follow(cycle, workers);
    Ok(())
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn connects(ip: [u8; 4], port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((ip, port)), Duration::from_secs(10)).is_ok()
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("s");
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap();
    let holder = TcpListener::bind(taken).unwrap();
    let port = free_port();
    let wanted = cycle(&[format!("unix:{}", path.display()), format!("127.0.0.1:{port}"), taken.to_string()]);
    let mut sockets = Sockets::default();
    let error = sockets.open(&wanted.sockets(), 2).unwrap_err();
    assert_eq!(error, format!("bind() to {taken} failed (98: Address already in use)"));
    assert!(!path.exists() && !connects([127, 0, 0, 1], port));
    drop(holder);
    serve(&mut sockets, &wanted, 2).unwrap();
    assert!(path.exists() && connects([127, 0, 0, 1], port));
    sockets.remove_files();
    assert!(!path.exists());
}

#[test]
fn a_socket_is_there_for_each_worker_and_for_no_more() {
    let port = free_port();
    let mut sockets = Sockets::default();
    let cycle = cycle(&[format!("127.0.0.1:{port} reuseport")]);
    let inodes = |sockets: &Sockets, count: usize| -> std::collections::BTreeSet<String> {
        let fds = (0..count).map(|ordinal| sockets.of_worker(ordinal).unwrap().remove(0).1);
        fds.map(|fd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap().display().to_string())
            .collect()
    };
    for (workers, leaving) in [(2, 0), (4, 0), (3, 1)] {
        serve(&mut sockets, &cycle, workers).unwrap();
        assert_eq!(inodes(&sockets, workers).len(), workers);
        assert_eq!(sockets.leaving.len(), leaving);
    }
    let kept = inodes(&sockets, 3);
    sockets.let_go();
    assert_eq!(inodes(&sockets, 3), kept, "a worker that is forked again has the socket of its ordinal");
}

#[test]
fn what_is_about_to_be_closed_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let port = free_port();
    let both = cycle(&[format!("unix:{}", path.display()), format!("127.0.0.1:{port}")]);
    let mut sockets = Sockets::default();
    serve(&mut sockets, &both, 1).unwrap();
    serve(&mut sockets, &cycle(&[format!("127.0.0.1:{}", free_port())]), 1).unwrap();
    assert!(path.exists() && connects([127, 0, 0, 1], port), "former workers still serve it");
    serve(&mut sockets, &both, 1).unwrap();
    sockets.let_go();
    assert!(path.exists() && connects([127, 0, 0, 1], port));
    sockets.remove_files();
    assert!(!path.exists());
}

#[test]
fn a_wildcard_lingers_beside_an_exact_address_and_comes_back() {
    let port = free_port();
    let (exact, wildcard) = (format!("127.0.0.1:{port}"), format!("{port}"));
    let (one, both) = (cycle(std::slice::from_ref(&exact)), cycle(&[exact, wildcard]));
    let mut sockets = Sockets::default();
    serve(&mut sockets, &both, 1).unwrap();
    assert!(connects([127, 0, 0, 1], port) && connects([127, 0, 0, 2], port));
    let gone = both.listener(&ListenAddr::Inet((Ipv4Addr::UNSPECIFIED, port).into())).unwrap();
    let opened = sockets.open(&one.sockets(), 1).unwrap();
    assert_eq!(opened.fresh.len(), 1);
    sockets.take_over(opened);
    let at = Duration::from_secs(100);
    sockets.commit(at, &one, &Committed { closed: vec![gone], ..Committed::default() });
    assert!(connects([127, 0, 0, 1], port) && !connects([127, 0, 0, 2], port));
    assert!(sockets.deadline().is_some_and(|deadline| deadline > at));
    // It comes back before it has gone, on the very socket.
    serve(&mut sockets, &both, 1).unwrap();
    assert_eq!(sockets.deadline(), None);
    assert!(connects([127, 0, 0, 1], port) && connects([127, 0, 0, 2], port));
}
