//! Work for two processors, where others wait for it: at a start, or in a large task.

/// Items that are worked on before the first of their results is taken: what the results need until then is needed once.
const AT_ONCE: usize = 4096;
/// Fewer are not worth a thread.
const MANY: usize = 1024;

/// Each item with what becomes of it; of many items every second half is left to another thread.
pub(super) fn in_two<T: Sync, R: Send>(items: &[T], each: impl Fn(&T) -> R + Sync) -> impl Iterator<Item = (&T, R)> {
    items.chunks(AT_ONCE).flat_map(move |some| some.iter().zip(all(some, &each)))
}

fn all<T: Sync, R: Send>(items: &[T], each: &(impl Fn(&T) -> R + Sync)) -> Vec<R> {
    let alone = |items: &[T]| items.iter().map(each).collect::<Vec<R>>();
    if items.len() < MANY {
        return alone(items);
    }
    let (first, second) = items.split_at(items.len() / 2);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("dysvr-write".into());
        let there = thread.spawn_scoped(scope, || alone(second));
        let mut done = alone(first);
        match there {
            Ok(there) => done.extend(there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))),
            // The machine has no room for a thread.
            Err(_) => done.extend(alone(second)),
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_comes_with_its_own_result_and_in_order() {
        for count in [0, 1, MANY - 1, MANY, AT_ONCE + 1, 3 * AT_ONCE + MANY + 1] {
            let items: Vec<usize> = (0..count).collect();
            let done: Vec<(usize, String)> =
                in_two(&items, |item| item.to_string()).map(|(item, it)| (*item, it)).collect();
            assert!(done.iter().enumerate().all(|(at, (item, it))| at == *item && *it == at.to_string()), "{count}");
            assert_eq!(done.len(), count);
        }
    }
}
