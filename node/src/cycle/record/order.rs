//! A vhost's place in the source, as it stands in a record.

use std::os::unix::ffi::OsStrExt as _;

use dysvr_conf::model::{OrderKey, OrderStep};

use super::{Damaged, path};

/// A place in the source as bytes that compare as the places do.
pub(in crate::cycle) fn order_bytes(order: &OrderKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    for step in order.0.iter() {
        bytes.extend_from_slice(&step.offset.to_be_bytes());
        match &step.file {
            None => bytes.push(0),
            Some(file) => {
                bytes.push(1);
                bytes.extend_from_slice(file.as_os_str().as_bytes());
                bytes.push(0); // no path has one
            }
        }
    }
    bytes
}

/// The steps of the place that [`order_bytes`] were made of.
pub(super) fn order_steps(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u32, Option<&[u8]>), Damaged>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let step = split_step(bytes);
        bytes = step.map_or(&[], |(_, rest)| rest);
        Some(step.map(|(step, _)| step).ok_or(Damaged))
    })
}

/// The first step, and what stands behind it.
type SplitStep<'r> = ((u32, Option<&'r [u8]>), &'r [u8]);

fn split_step(bytes: &[u8]) -> Option<SplitStep<'_>> {
    let (offset, rest) = bytes.split_first_chunk::<4>()?;
    let (has_file, rest) = rest.split_first()?;
    let (file, rest) = match has_file {
        0 => (None, rest),
        _ => {
            let end = rest.iter().position(|byte| *byte == 0)?;
            (Some(&rest[..end]), &rest[end + 1..])
        }
    };
    Some(((u32::from_be_bytes(*offset), file), rest))
}

/// The place that [`order_bytes`] were made of.
pub(super) fn order_of(bytes: &[u8]) -> Result<OrderKey, Damaged> {
    let step = |(offset, file): (u32, Option<&[u8]>)| OrderStep { offset, file: file.map(path) };
    Ok(OrderKey(order_steps(bytes).map(|it| it.map(step)).collect::<Result<_, _>>()?))
}
