//! The record as bytes, for shared memory. Numbers are little-endian; every length is checked against what is left.

use std::ffi::{OsStr, OsString};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Answer, Sources, Table};

/// Raised when the layout changes; master and workers are one binary, but not across an upgrade.
const VERSION: u8 = 2;

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSources {
    /// They end too early.
    #[error("the record of the configuration's files is cut short")]
    Truncated,
    /// They were written by another version of this code.
    #[error("the record of the configuration's files has version {0}, not {VERSION}")]
    Version(u8),
    /// A value is none of those that are possible there.
    #[error("the record of the configuration's files is damaged")]
    Damaged,
    /// There is more than a record.
    #[error("the record of the configuration's files is followed by something else")]
    Trailing,
}

type Decoded<T> = Result<T, InvalidSources>;

impl Sources {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let all = [&self.files, &self.secrets].into_iter().flat_map(|table| &table.answers);
        let content = all.map(|(path, text)| path.len() + text.as_ref().map_or(0, |text| text.len()) + 16);
        let content: usize = content.sum();
        let mut out = Vec::with_capacity(content + 1024);
        out.push(VERSION);
        for table in [&self.files, &self.secrets] {
            put_table(&mut out, table, |out, path| put_bytes(out, path.as_bytes()), |out, text| put_bytes(out, text));
        }
        put_table(
            &mut out,
            &self.globs,
            |out, path| put_bytes(out, path.as_os_str().as_bytes()),
            |out, paths| {
                put_len(out, paths.len());
                paths.iter().for_each(|path| put_bytes(out, path.as_os_str().as_bytes()));
            },
        );
        put_table(
            &mut out,
            &self.hosts,
            |out, host| put_bytes(out, host.as_bytes()),
            |out, addresses| {
                put_len(out, addresses.len());
                addresses.iter().for_each(|address| match address {
                    IpAddr::V4(ip) => put_bytes(out, &ip.octets()),
                    IpAddr::V6(ip) => put_bytes(out, &ip.octets()),
                });
            },
        );
        out
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Decoded<Self> {
        let mut input = Input(bytes);
        match input.take(1)?[0] {
            VERSION => {}
            other => return Err(InvalidSources::Version(other)),
        }
        let files = input.table(Input::name, |input| input.bytes().map(Arc::from))?;
        let secrets = input.table(Input::name, |input| input.bytes().map(Arc::from))?;
        let globs = input.table(Input::path, |input| input.list(Input::path))?;
        let hosts = input.table(Input::host, |input| input.list(Input::address))?;
        if !input.0.is_empty() {
            return Err(InvalidSources::Trailing);
        }
        Ok(Self { files, secrets, globs, hosts })
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    // Files are below 4 GiB: the parser refuses larger ones.
    out.extend_from_slice(&(len as u32).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_table<K, V>(
    out: &mut Vec<u8>,
    table: &Table<K, V>,
    mut put_key: impl FnMut(&mut Vec<u8>, &K),
    mut put_value: impl FnMut(&mut Vec<u8>, &V),
) {
    put_len(out, table.answers.len());
    for (key, answer) in &table.answers {
        put_key(out, key);
        match answer {
            Ok(value) => {
                out.push(0);
                put_value(out, value);
            }
            Err(code) => {
                out.push(1);
                out.extend_from_slice(&code.to_le_bytes());
            }
        }
    }
}

/// What is left to read.
struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    fn take(&mut self, len: usize) -> Decoded<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(InvalidSources::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn word(&mut self) -> Decoded<[u8; 4]> {
        self.take(4)?.try_into().map_err(|_| InvalidSources::Truncated)
    }

    fn len(&mut self) -> Decoded<usize> {
        Ok(u32::from_le_bytes(self.word()?) as usize)
    }

    fn bytes(&mut self) -> Decoded<&'b [u8]> {
        let len = self.len()?;
        self.take(len)
    }

    fn name(&mut self) -> Decoded<OsString> {
        Ok(OsStr::from_bytes(self.bytes()?).to_owned())
    }

    fn path(&mut self) -> Decoded<PathBuf> {
        Ok(self.name()?.into())
    }

    fn host(&mut self) -> Decoded<String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| InvalidSources::Damaged)
    }

    fn address(&mut self) -> Decoded<IpAddr> {
        let octets = self.bytes()?;
        if let Ok(octets) = <[u8; 4]>::try_from(octets) {
            return Ok(Ipv4Addr::from(octets).into());
        }
        let octets: [u8; 16] = octets.try_into().map_err(|_| InvalidSources::Damaged)?;
        Ok(Ipv6Addr::from(octets).into())
    }

    /// Grows with what is really there, not with what the count claims.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Decoded<T>) -> Decoded<Vec<T>> {
        let count = self.len()?;
        (0..count).map(|_| item(self)).collect()
    }

    fn table<K: Eq + Hash, V: Clone>(
        &mut self,
        mut key: impl FnMut(&mut Self) -> Decoded<K>,
        mut value: impl FnMut(&mut Self) -> Decoded<V>,
    ) -> Decoded<Table<K, V>> {
        let mut table = Table::default();
        for _ in 0..self.len()? {
            let key = key(self)?;
            let answer: Answer<V> = match self.take(1)?[0] {
                0 => Ok(value(self)?),
                1 => Err(i32::from_le_bytes(self.word()?)),
                _ => return Err(InvalidSources::Damaged),
            };
            if table.find(&key).is_some() {
                return Err(InvalidSources::Damaged);
            }
            table.insert(key, answer);
        }
        Ok(table)
    }
}
