//! What readers may ask of their data: all of it, and that it be erased.

pub mod erase;
pub mod export;
