//! What a program says of itself: its [`build`], its [`manual`], its [`output`], and its state towards a
//! [`service`] manager.

pub mod build;
pub mod manual;
pub mod output;
pub mod service;
