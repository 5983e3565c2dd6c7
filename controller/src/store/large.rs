//! Values that may be larger than a key may hold: cut into chunks below one prefix.

use super::{MAX_TXN_BYTES, MAX_TXN_OPS, Store, StoreError, Txn, Write};

/// The size of a chunk, bytes: two of them and their keys fit one transaction.
pub const CHUNK: usize = 512 << 10;

/// Writes values below their prefixes, unconditionally, in as few transactions as the limits allow. Writing the same
/// again changes nothing, so an unknown outcome is simply tried again. A prefix must end in `/` and name
/// its content (by digest): it must never hold another value.
pub async fn write_large(store: &dyn Store, values: Vec<(String, Vec<u8>)>) -> Result<(), StoreError> {
    let mut txn = Txn::new();
    let mut size = 0;
    for (prefix, value) in values {
        // An empty value is one empty chunk: absent and empty differ.
        let count = value.len().div_ceil(CHUNK).max(1);
        for n in 0..count {
            let chunk = &value[n * CHUNK..value.len().min((n + 1) * CHUNK)];
            let key = format!("{prefix}{n:05}-{count:05}");
            let more = key.len() + chunk.len();
            if txn.writes.len() == MAX_TXN_OPS || size + more > MAX_TXN_BYTES {
                put(store, std::mem::take(&mut txn)).await?;
                size = 0;
            }
            size += more;
            txn.writes.push(Write::Put(key, chunk.to_vec()));
        }
    }
    if txn.writes.is_empty() { Ok(()) } else { put(store, txn).await }
}

async fn put(store: &dyn Store, txn: Txn) -> Result<(), StoreError> {
    match store.commit(txn.clone()).await {
        Err(StoreError::Unknown { .. }) => store.commit(txn).await.map(drop),
        outcome => outcome.map(drop),
    }
}

/// The value below a prefix, `None` if it is not there or only in part (its writer died).
pub async fn read_large(store: &dyn Store, prefix: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let found = store.range(prefix, None).await?;
    let Some(first) = found.entries.first() else { return Ok(None) };
    let count = first.key.rsplit_once('-').and_then(|(_, count)| count.parse::<usize>().ok());
    if count != Some(found.entries.len()) {
        return Ok(None);
    }
    Ok(Some(found.entries.into_iter().flat_map(|entry| entry.value).collect()))
}
