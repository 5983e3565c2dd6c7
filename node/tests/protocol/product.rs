// The product's files and what stands in for the rest of its folder. Included, not a module: they know each other by `super`.

#[path = "atomic.rs"]
mod atomic;
#[allow(dead_code, reason = "the product's")]
#[path = "../../src/os/zone/message.rs"]
mod message;
#[path = "mutex.rs"]
mod mutex;
#[allow(dead_code, reason = "the product's")]
#[path = "../../src/os/zone/slot.rs"]
mod slot;
#[allow(dead_code, reason = "the product's")]
#[path = "../../src/os/zone/words.rs"]
mod words;
