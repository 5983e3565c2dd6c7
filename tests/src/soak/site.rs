//! The vhosts of a soak: what stands in their files at each revision, and what each of them may answer now.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Result;

use super::state::{History, State};
use crate::bench::Peer;
use crate::prefix::Prefix;

/// All vhosts, shared by who changes them and who asks them.
#[derive(Debug)]
pub struct Site {
    /// Where upstreams lead; which one is known from vhost and upstream revision.
    pub origins: Vec<SocketAddr>,
    port: u16,
    ports: Vec<u16>,
    peer: Peer,
    histories: Vec<Mutex<History>>,
}

impl Site {
    /// `vhosts` vhosts on a port of dysvr or nginx, all there at the first revision.
    pub fn new(peer: Peer, vhosts: usize, port: u16, origins: Vec<SocketAddr>) -> Self {
        let first = || Mutex::new(History::new(State::Present { vhost: 0, upstream: 0 }, Instant::now()));
        Self { origins, port, ports: Vec::new(), peer, histories: (0..vhosts).map(|_| first()).collect() }
    }

    /// Gives each of the first vhosts a port of its own, which only every fourth revision has: it is opened and closed in
    /// place all the time.
    #[must_use]
    pub fn with_ports(self, ports: Vec<u16>) -> Self {
        Self { ports, ..self }
    }

    /// The port of its own that a vhost has at a revision.
    pub fn own_port(&self, number: usize, revision: u64) -> Option<u16> {
        self.ports.get(number).copied().filter(|_| revision % 4 == 1)
    }

    /// Writes all files of the first revision.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_first(&self, prefix: &Prefix) -> Result<()> {
        (0..self.len()).try_for_each(|number| self.write(prefix, number, State::Present { vhost: 0, upstream: 0 }))
    }

    /// How many vhosts there are, absent ones included.
    pub fn len(&self) -> usize {
        self.histories.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.histories.is_empty()
    }

    /// What happened to a vhost.
    pub fn history(&self, number: usize) -> MutexGuard<'_, History> {
        // Numbers come from `len`; one too large asks for the last.
        let at = number.min(self.histories.len().saturating_sub(1));
        self.histories[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which origin answers for a vhost at a revision of its upstream.
    pub fn origin(&self, number: usize, upstream: u64) -> usize {
        (number as u64).wrapping_add(upstream) as usize % self.origins.len().max(1)
    }

    /// Writes the files of a state; an absent vhost has none.
    ///
    /// # Errors
    /// When they cannot be written or removed.
    pub fn write(&self, prefix: &Prefix, number: usize, state: State) -> Result<()> {
        match state {
            State::Present { vhost, upstream } => {
                let origin = self.origins.get(self.origin(number, upstream));
                let address = origin.map(SocketAddr::to_string).unwrap_or_default();
                let name = name(number);
                let text = format!("upstream {name} {{\n    server {address};\n    keepalive 4;\n}}\n");
                prefix.write(&upstream_file(number), &text)?;
                prefix.write(&vhost_file(number), &self.vhost(number, vhost))
            }
            State::Absent => {
                for file in [vhost_file(number), upstream_file(number)] {
                    std::fs::remove_file(prefix.conf(&file))?;
                }
                Ok(())
            }
        }
    }

    fn vhost(&self, number: usize, revision: u64) -> String {
        let (name, host, port) = (name(number), host(number), self.port);
        let pass = |connection: &str| {
            format!(
                "        proxy_http_version 1.1;\n        proxy_set_header Host $host;\n        {connection}        \
                 proxy_set_header X-Vhost {name};\n        proxy_set_header X-Rev {revision};\n        \
                 proxy_read_timeout 600s;\n        proxy_pass http://{name};\n"
            )
        };
        let plain = pass("proxy_set_header Connection \"\";\n");
        let tunnel = pass("proxy_set_header Upgrade $http_upgrade;\n        proxy_set_header Connection upgrade;\n");
        let more = self.own_port(number, revision).map(|port| format!("    listen 127.0.0.1:{port};\n"));
        let more = more.unwrap_or_default();
        format!(
            "include {upstream};\nserver {{\n{identity}    listen 127.0.0.1:{port};\n{more}    server_name {host};\n    \
             add_header X-Worker $pid always;\n    add_header X-Vhost {name} always;\n    \
             add_header X-Rev {revision} always;\n    location / {{\n{plain}    }}\n    location /live {{\n{tunnel}    }}\n}}\n",
            upstream = upstream_file(number),
            identity = match self.peer {
                Peer::Dysvr => format!("    vsvc_id {};\n", vsvc_id(number)),
                Peer::Nginx | Peer::Haproxy => String::new(),
            },
        )
    }
}

/// The name of a vhost's upstream, and the vhost's own in its headers.
pub fn name(number: usize) -> String {
    format!("s{number}")
}

/// The name that clients ask for.
pub fn host(number: usize) -> String {
    format!("s{number}.soak.example")
}

/// Its `vsvc_id`.
pub fn vsvc_id(number: usize) -> u64 {
    number as u64 + 1
}

/// Its file below conf/.
pub fn vhost_file(number: usize) -> String {
    format!("auto_vhost/s{number:05}.conf")
}

/// The file of its upstream below conf/.
pub fn upstream_file(number: usize) -> String {
    format!("auto_upstream/s{number:05}.conf")
}
