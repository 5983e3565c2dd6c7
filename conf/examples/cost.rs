//! What reading costs: `cargo run --release -p dysvr-conf --example cost`.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use dysvr_conf::bundle::{Assumptions, Bundle, validate_bundle};
use dysvr_conf::intern::Interner;
use dysvr_conf::load::{LoadOptions, Running, load, load_fragment};
use dysvr_conf::source::{Memory, Recording};
use dysvr_conf::syntax;

fn vhost(n: usize) -> String {
    let rules: String = (0..12)
        .map(|rule| {
            format!(
                "    location /app{rule}/ {{\n        set $path{rule} $uri;\n        if ($http_x_rule = '') {{ set \
                 $path{rule} \"none\"; }}\n        proxy_pass http://u{n};\n    }}\n"
            )
        })
        .collect();
    format!(
        "# vhost {n}\ninclude auto_upstream/{n}.conf;\nserver {{\n    vsvc_id {};\n    listen 80;\n    listen [::]:80;\n    \
         server_name host{n}.example.com;\n    location / {{\n        proxy_set_header Host $host;\n        \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n        proxy_pass http://u{n};\n    }}\n{rules}}}\n",
        n + 1
    )
}

/// The middle of many runs.
fn median(mut run: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..201)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn main() {
    let text = vhost(7);
    let time = median(|| drop(black_box(syntax::parse(black_box(text.as_bytes()), &syntax::Arena::new()))));
    println!("parse a vhost of {} bytes: {time:?}", text.len());

    for count in [1_000, 10_000] {
        let mut files = Memory::default();
        let mut bundle = Bundle::default();
        files.insert("/p/nginx.conf", "events {}\nhttp { access_log off; include auto_vhost/*.conf; }\n");
        for n in 0..count {
            let names = [format!("auto_vhost/{n}.conf"), format!("auto_upstream/{n}.conf")];
            for (name, text) in names.iter().zip([vhost(n), format!("upstream u{n} {{ server 127.0.0.1:80; }}\n")]) {
                bundle.insert(name.as_bytes(), text.as_bytes()).expect("a good name");
                files.insert(Path::new("/p").join(name), text);
            }
        }
        files.insert("/task.conf", "include /p/auto_vhost/7.conf;");
        let options =
            LoadOptions { conf: "/p/nginx.conf".into(), prefix: "/p".into(), globals: String::new(), privileged: true };
        let mut interner = Interner::default();
        let start = Instant::now();
        let config = load(&options, &mut files, &mut interner).expect("a good configuration");
        println!("{count} vhosts: full load {:?}", start.elapsed());
        let http = config.http.expect("http");
        let time = median(|| {
            let fragment = load_fragment(
                &Running::new(&http, &|name| Some(name.into())),
                "/task.conf".as_ref(),
                &mut files,
                &mut interner,
            );
            drop(black_box(fragment).expect("a good task"));
        });
        println!("{count} vhosts: fragment of one {time:?}");
        let mut recording = Recording::new(&mut files);
        load_fragment(
            &Running::new(&http, &|name| Some(name.into())),
            "/task.conf".as_ref(),
            &mut recording,
            &mut interner,
        )
        .expect("a good task");
        let sources = recording.into_sources();
        println!(
            "{count} vhosts: record of it {} bytes in {:?}",
            sources.encode().len(),
            median(|| drop(sources.encode()))
        );
        let start = Instant::now();
        validate_bundle(&bundle, &Assumptions::default()).expect("a good bundle");
        println!("{count} vhosts: bundle checked in {:?}", start.elapsed());
    }
}
