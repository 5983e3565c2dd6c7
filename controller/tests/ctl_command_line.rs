//! The command line without any controller: what it refuses, what it prints, how it exits.

mod ctl_support;
#[path = "../../tests/src/ports.rs"]
mod ports;

use std::net::TcpListener;
use std::process::Stdio;

use ctl_support::{Ctl, write};

/// Nobody listens there.
fn nobody() -> String {
    format!("http://127.0.0.1:{}", ports::free().expect("a port"))
}

#[test]
fn nonsense_exits_with_2_and_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), &[("a.conf", "server {}\n"), ("nginx.conf", "http {}\n"), ("none/x", "")]);
    let ctl = Ctl::new(nobody(), dir.path());
    for (args, why) in [
        (&["frobnicate"][..], "unrecognized subcommand"),
        (&["apply"], "--filename"),
        (&["apply", "-f", "a.conf", "--waves", "0"], "\"0\" is not the size of a wave"),
        (&["apply", "-f", "gone.conf"], "error: the path \"gone.conf\" does not exist"),
        (&["apply", "-f", "nginx.conf"], "nginx.conf is the main file of a node"),
        (&["apply", "-f", "none"], "none has no auto_vhost/*.conf and no *.conf"),
        (&["apply", "-f", "-"], "error: -f - needs --name"),
        (&["apply", "-f", "-", "--name", "a/b.conf"], "error: \"a/b.conf\" is no name of a vhost file"),
        (&["get", "pods"], "error: dysvr does not have a resource type \"pods\""),
        (&["get", "vhosts", "--rollout", "3"], "error: --rollout is for tasks, not for vhosts"),
        (&["get", "rollouts", "-w", "-o", "json"], "error: --watch prints tables"),
        (&["delete", "node", "n1"], "error: nodes cannot be deleted, only vhosts can"),
        (&["delete", "vhost"], "error: which vhost?"),
        (&["describe", "task", "1"], "error: tasks are described with their rollout or their node"),
        (&["--controller", "https://x", "get", "nodes"], "https:// is not supported"),
    ] {
        let run = ctl.run(args);
        assert!(run.code == 2 && run.stdout.is_empty() && run.stderr.contains(why), "{args:?}: {run:?}");
    }
}

#[test]
fn no_controller_exits_with_4_and_names_each_that_was_tried() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), &[("a.conf", "server {}\n")]);
    let (one, two) = (nobody(), nobody());
    let ctl = Ctl::new(format!("{one},{two}"), dir.path());
    for args in [
        &["get", "nodes"][..],
        &["apply", "-f", "a.conf", "--wait"],
        &["diff", "-f", "a.conf"],
        &["delete", "vhost", "1"],
        &["describe", "node", "n1"],
        &["rollout", "watch"],
        &["rollout", "pause", "7"],
        &["rollout", "undo"],
        &["node", "revert", "n1"],
    ] {
        let run = ctl.run(args);
        assert_eq!((run.code, run.stdout.as_str()), (4, ""), "{args:?}: {run:?}");
        assert!(run.stderr.starts_with("error: cannot reach a controller: "), "{args:?}: {run:?}");
        assert!(run.stderr.contains(&one) && run.stderr.contains(&two), "{args:?}: {run:?}");
    }
}

#[test]
fn a_controller_that_never_answers_costs_the_request_timeout() {
    let dir = tempfile::tempdir().expect("a directory");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port"); // accepts in the kernel, says nothing
    let ctl = Ctl::new(format!("http://{}", silent.local_addr().expect("an address")), dir.path());
    let run = ctl.run(&["get", "nodes", "--request-timeout", "300ms"]);
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.stderr.contains("300ms"), "{run:?}");
}

#[test]
fn complete_files_are_checked_without_a_controller() {
    let dir = tempfile::tempdir().expect("a directory");
    let good = "include auto_upstream/a.conf;\nserver {\n    vsvc_id 1;\n    listen 80;\n    \
                location / { proxy_pass http://a; }\n}\n";
    write(
        dir.path(),
        &[
            ("site/auto_vhost/a.conf", good),
            ("site/auto_upstream/a.conf", "upstream a { server 127.0.0.1:81; }\n"),
            ("more/auto_vhost/a.conf", "server {\n    vsvc_id 2;\n    return 204;\n}\n"),
            ("more/auto_upstream/spare.conf", "upstream spare { server 127.0.0.1:82; }\n"),
            ("bad.conf", "server {\n    listn 80;\n    location / { proxy_pass http://nobody; }\n}\n"),
            ("lacks.conf", "server {\n    include gone.conf;\n}\n"),
        ],
    );
    let ctl = Ctl::new(nobody(), dir.path());
    for more in [&[][..], &["--offline"]] {
        let run = ctl.run(&[&["validate", "-f", "site"], more].concat());
        assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (0, "2 files valid\n", ""), "{run:?}");
        let run = ctl.run(&[&["validate", "-f", "more"], more].concat());
        let refused = "more/auto_upstream/spare.conf: no include reaches this file: it would have no effect\n";
        assert!(run.code == 3 && run.stderr.starts_with(refused), "{run:?}");
        let run = ctl.run(&[&["validate", "-f", "bad.conf"], more].concat());
        assert_eq!((run.code, run.stdout.as_str()), (3, ""), "{run:?}");
        assert!(run.stderr.starts_with("bad.conf:2: unknown directive \"listn\"\nbad.conf:3: "), "{run:?}");
        assert!(run.stderr.ends_with("error: 2 problems, nothing was stored\n"), "{run:?}");
    }
    // What is missing here the fleet may have: only a controller knows.
    assert_eq!(ctl.run(&["validate", "-f", "lacks.conf"]).code, 4);
    let run = ctl.run(&["validate", "-f", "lacks.conf", "--offline"]);
    assert!(run.code == 3 && run.stderr.starts_with("lacks.conf:2: open() \"gone.conf\" failed"), "{run:?}");
    let run = ctl.run_with_stdin(&["validate", "-f", "-", "--name", "in.conf"], "server { listn 8080; }\n");
    assert!(run.code == 3 && run.stderr.starts_with("in.conf:1: unknown directive \"listn\"\n"), "{run:?}");
}

#[test]
fn help_documents_the_exit_codes_and_completions_exist_for_each_shell() {
    let dir = tempfile::tempdir().expect("a directory");
    let ctl = Ctl::new(nobody(), dir.path());
    let help = ctl.ok(&["--help"]);
    for line in ["Exit codes:", "  3  the input was refused", "  4  no controller", "DYSVR_CONTROLLER", "NO_COLOR"] {
        assert!(help.contains(line), "{line} in {help}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = ctl.ok(&["completion", shell]);
        assert!(script.contains("rollout") && script.contains("dysvrctl"), "{shell}");
    }
    assert_eq!(ctl.ok(&["version"]), format!("dysvrctl {}\n", env!("CARGO_PKG_VERSION")));
    assert!(ctl.ok(&["version", "-o", "yaml"]).starts_with("client_version: "));
}

#[test]
fn a_reader_that_goes_away_is_no_error_to_speak_of() {
    let dir = tempfile::tempdir().expect("a directory");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Ctl::new(nobody(), dir.path()).command(&["completion", "bash"]);
    let output = command.stdout(writer).stderr(Stdio::piped()).output().expect("dysvrctl starts");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(141), &b""[..]));
}
