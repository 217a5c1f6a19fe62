//! The library behind the `phyla` program, for programs that want the same choices by name.

pub mod device;
