//! What a program is told and says of itself: its [`arguments`] and [`signals`], its [`build`], its
//! [`manual`], its [`output`], its state towards a [`service`] manager, and the code of its
//! [`exit`].

pub mod arguments;
pub mod build;
pub mod exit;
pub mod manual;
pub mod output;
pub mod service;
pub mod signals;
