//! The memory guard: on a machine that is short of memory nothing is signalled, since an update needs some for itself.
//!
//! The formula is that of the original's `l7_ngx_ops.sh`: what is free or could be freed, in percent of all there is.

/// Below this share of memory, in percent, a task is refused.
pub const LEAST_PERCENT: u64 = 20;

/// Why the guard cannot say anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("meminfo: {0}")]
pub struct InvalidMeminfo(String);

/// The share of memory that is free or could be freed, in whole percent (rounded down), from the text of
/// `/proc/meminfo`: (MemFree + Buffers + Cached + SReclaimable - Shmem) * 100 / MemTotal. `Cached` is that line alone,
/// not `SwapCached`; shared memory counts as cached but cannot be freed.
pub fn free_percent(meminfo: &str) -> Result<u64, InvalidMeminfo> {
    let field = |name: &str| -> Result<u64, InvalidMeminfo> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let line = line.ok_or_else(|| InvalidMeminfo(format!("no line {name}")))?;
        let number = line.split_whitespace().next().and_then(|text| text.parse().ok());
        number.ok_or_else(|| InvalidMeminfo(format!("{name} is not a number")))
    };
    let total = field("MemTotal")?;
    if total == 0 {
        return Err(InvalidMeminfo("MemTotal is 0".into()));
    }
    let freeable = ["MemFree", "Buffers", "Cached", "SReclaimable"]
        .iter()
        .try_fold(0u128, |sum, name| field(name).map(|n| sum + u128::from(n)))?;
    let percent = freeable.saturating_sub(field("Shmem")?.into()) * 100 / u128::from(total);
    Ok(u64::try_from(percent).unwrap_or(u64::MAX))
}

/// Lets a task pass, or says why not.
pub fn guard(meminfo: &str) -> Result<u64, String> {
    match free_percent(meminfo) {
        Ok(percent) if percent < LEAST_PERCENT => {
            Err(format!("low memory: {percent} % is free or can be freed, {LEAST_PERCENT} % is needed"))
        }
        Ok(percent) => Ok(percent),
        Err(e) => Err(format!("memory guard: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meminfo(total: u64, free: u64, buffers: u64, cached: u64, slab: u64, shmem: u64) -> String {
        format!(
            "MemTotal:       {total} kB\nMemFree:        {free} kB\nMemAvailable:   1 kB\nBuffers: {buffers} kB\n\
             SwapCached:     999999999 kB\nCached:  {cached} kB\nShmemHugePages: 5 kB\nShmem: {shmem} kB\n\
             SReclaimable: {slab} kB\n"
        )
    }

    #[test]
    fn the_originals_log_says_70_percent() {
        let text = meminfo(32412228, 8505484, 452804, 12436184, 1745544, 370824);
        assert_eq!(free_percent(&text), Ok(70));
        assert_eq!(guard(&text), Ok(70));
    }

    #[test]
    fn refuses_below_twenty() {
        assert_eq!(guard(&meminfo(100, 20, 0, 0, 0, 0)), Ok(20));
        assert_eq!(
            guard(&meminfo(1000, 100, 50, 50, 49, 50)).unwrap_err(),
            "low memory: 19 % is free or can be freed, 20 % is needed"
        );
        assert_eq!(free_percent(&meminfo(100, 1, 0, 0, 0, 50)), Ok(0));
    }

    #[test]
    fn odd_text_is_refused_by_name() {
        let text = meminfo(100, 50, 0, 0, 0, 0);
        for (text, error) in [
            (String::new(), "meminfo: no line MemTotal"),
            (text.replace("Cached:  0", "Kached:  0"), "meminfo: no line Cached"),
            (text.replace("Shmem: 0", "Shmem: x"), "meminfo: Shmem is not a number"),
            (meminfo(0, 0, 0, 0, 0, 0), "meminfo: MemTotal is 0"),
        ] {
            assert_eq!(free_percent(&text).unwrap_err().to_string(), error);
        }
        let most = u64::MAX;
        assert_eq!(free_percent(&meminfo(most, most, most, most, most, 0)), Ok(400));
    }

    #[test]
    fn this_machines_own_file_is_understood() {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap();
        assert!(free_percent(&text).unwrap() <= 100);
    }
}
