//! The origins of a soak: many addresses, one thread. Each says which one it is and what it was asked.
//!
//! | request | answer |
//! | --- | --- |
//! | with `Upgrade` | 101, then every byte comes back |
//! | `/drip?MS` | chunks `0\n`, `1\n`, …, one each MS ms, until the client leaves |
//! | `/load?N` | N bytes of [`pattern`] |
//! | any other | its target, a line end, its body |

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::wire::{Head, read_body};

/// Running origins; they end when this is dropped.
#[derive(Debug)]
pub struct Origins {
    /// Where each listens.
    pub addresses: Vec<SocketAddr>,
    ending: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Origins {
    /// Starts `count` of them on free ports of 127.0.0.1.
    ///
    /// # Errors
    /// When they cannot listen.
    pub fn start(count: usize) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the origins")?;
        let bind = async {
            let mut all = Vec::new();
            for _ in 0..count {
                all.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?);
            }
            io::Result::Ok(all)
        };
        let listeners = runtime.block_on(bind).context("listening for the origins")?;
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
        let (ending, ended) = oneshot::channel();
        let run = move || {
            runtime.block_on(async {
                for (number, listener) in listeners.into_iter().enumerate() {
                    tokio::spawn(accept(number, listener));
                }
                let _ = ended.await;
            });
        };
        let thread = std::thread::Builder::new().name("origins".to_owned()).spawn(run).context("the origins")?;
        Ok(Self { addresses, ending: Some(ending), thread: Some(thread) })
    }

    /// Ends them and tells whether they ran to the end.
    ///
    /// # Errors
    /// When their thread panicked.
    pub fn stop(mut self) -> Result<()> {
        self.ending = None;
        let joined = self.thread.take().map(JoinHandle::join);
        joined.transpose().map(drop).map_err(|_| anyhow!("the origins' thread panicked"))
    }
}

impl Drop for Origins {
    fn drop(&mut self) {
        self.ending = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The byte at a place of what `/load` answers: a shift by any length short of 251 shows.
pub fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

async fn accept(number: usize, listener: TcpListener) {
    loop {
        // Out of descriptors or the like: clients see what comes of it.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        tokio::spawn(serve(number, stream));
    }
}

async fn serve(number: usize, stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(head) = Head::read(&mut stream).await? {
        let target = head.start().split(' ').nth(1).unwrap_or_default().to_owned();
        let seen = |name: &str| head.header(name).unwrap_or("-");
        let said = format!(
            "X-Origin: {number}\r\nX-Seen-Host: {}\r\nX-Seen-Vhost: {}\r\nX-Seen-Rev: {}\r\n",
            seen("host"),
            seen("x-vhost"),
            seen("x-rev")
        );
        if head.header("upgrade").is_some() {
            let switch =
                format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{said}\r\n");
            stream.write_all(switch.as_bytes()).await?;
            return echo(&mut stream).await;
        }
        let body = read_body(&mut stream, head.length().unwrap_or(0)).await?;
        let argument = target.split_once('?').and_then(|(_, number)| number.parse().ok());
        match (target.split('?').next(), argument) {
            (Some("/drip"), Some(every_ms)) => return drip(&mut stream, &said, every_ms).await,
            (Some("/load"), Some(length)) => load(&mut stream, &said, length).await?,
            _ => {
                let length = target.len() + 1 + body.len();
                let mut answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{said}\r\n{target}\n").into_bytes();
                answer.extend_from_slice(&body);
                stream.write_all(&answer).await?;
            }
        }
    }
    Ok(())
}

async fn echo(stream: &mut BufReader<TcpStream>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..count]).await?;
    }
}

async fn drip(stream: &mut BufReader<TcpStream>, said: &str, every_ms: usize) -> io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{said}\r\n");
    stream.write_all(head.as_bytes()).await?;
    for number in 0_u64.. {
        let drop = format!("{number}\n");
        stream.write_all(format!("{:x}\r\n{drop}\r\n", drop.len()).as_bytes()).await?;
        // The pause is the behaviour that is asked for.
        tokio::time::sleep(Duration::from_millis(every_ms as u64)).await;
    }
    Ok(())
}

async fn load(stream: &mut BufReader<TcpStream>, said: &str, length: usize) -> io::Result<()> {
    stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{said}\r\n").as_bytes()).await?;
    let mut at = 0;
    while at < length {
        let piece: Vec<u8> = (at..length.min(at + 16_384)).map(pattern).collect();
        stream.write_all(&piece).await?;
        at += piece.len();
    }
    Ok(())
}
