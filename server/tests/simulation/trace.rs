//! What happened: the last steps as text, all of them as a hash.

use std::collections::VecDeque;

/// Steps that a failing run prints.
const KEPT: usize = 50;

#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    last: VecDeque<String>,
    pub step: u64,
    /// Whether everything is printed: `HONGBAO_SIM_LOUD`.
    is_loud: bool,
}

impl Trace {
    pub fn new() -> Self {
        Self { is_loud: std::env::var_os("HONGBAO_SIM_LOUD").is_some(), ..Self::default() }
    }

    /// Notes what the current step does, or an effect of it.
    pub fn note(&mut self, what: String) {
        self.mix(what.as_bytes());
        if self.is_loud {
            eprintln!("{:>7}  {what}", self.step);
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(format!("{:>7}  {what}", self.step));
    }

    /// Bytes that are part of the run without being worth a line.
    pub fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        self.hash = self.hash.rotate_left(23) ^ self.step;
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn last(&self) -> String {
        self.last.iter().map(|line| format!("{line}\n")).collect()
    }
}
