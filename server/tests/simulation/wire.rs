//! A connection's way down: a kernel buffer that the client reads from, and the server's outbox
//! behind it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use hongbao_server::limits::OUTBOX_BYTES_MAX;
use hongbao_server::transport::wire::{Wire, Written};

#[derive(Debug)]
pub struct Pipe {
    /// What the kernels hold between the two.
    down: RefCell<VecDeque<u8>>,
    window: usize,
    outbox: RefCell<VecDeque<u8>>,
    finished: Cell<bool>,
    cut: Cell<bool>,
    /// The client has gone: what is written is lost.
    deaf: Cell<bool>,
}

impl Pipe {
    pub fn new(window: usize) -> Rc<Self> {
        Rc::new(Self {
            down: RefCell::default(),
            window,
            outbox: RefCell::default(),
            finished: Cell::new(false),
            cut: Cell::new(false),
            deaf: Cell::new(false),
        })
    }

    /// The client reads up to so many bytes.
    pub fn read(&self, max: usize) -> Vec<u8> {
        let mut down = self.down.borrow_mut();
        let count = max.min(down.len());
        let read = down.drain(..count).collect();
        let mut outbox = self.outbox.borrow_mut();
        let room = (self.window - down.len()).min(outbox.len());
        down.extend(outbox.drain(..room));
        read
    }

    pub fn is_dry(&self) -> bool {
        self.down.borrow().is_empty() && self.outbox.borrow().is_empty()
    }

    /// Whether the client, having read everything, reads an end.
    pub fn is_over(&self) -> bool {
        self.is_dry() && (self.finished.get() || self.cut.get())
    }

    pub fn is_cut(&self) -> bool {
        self.cut.get()
    }

    pub fn go_deaf(&self) {
        self.deaf.set(true);
        self.down.borrow_mut().clear();
        self.outbox.borrow_mut().clear();
    }
}

#[derive(Debug)]
pub struct SimWire(pub Rc<Pipe>);

impl Wire for SimWire {
    fn write(&mut self, frames: &[u8]) -> Written {
        let pipe = &self.0;
        if pipe.deaf.get() || pipe.cut.get() {
            // As a socket that has failed: its reader finds out.
            return Written::Sent;
        }
        let mut outbox = pipe.outbox.borrow_mut();
        if !outbox.is_empty() {
            if outbox.len() + frames.len() > OUTBOX_BYTES_MAX {
                return Written::Overflow;
            }
            outbox.extend(frames);
            return Written::Queued { newly: false };
        }
        let mut down = pipe.down.borrow_mut();
        let room = (pipe.window - down.len()).min(frames.len());
        down.extend(&frames[..room]);
        match frames.len() - room {
            0 => Written::Sent,
            rest if rest > OUTBOX_BYTES_MAX => Written::Overflow,
            _ => {
                outbox.extend(&frames[room..]);
                Written::Queued { newly: true }
            }
        }
    }

    fn finish(&mut self) {
        self.0.finished.set(true);
    }

    fn cut(&mut self) {
        self.0.outbox.borrow_mut().clear();
        self.0.cut.set(true);
    }

    fn backlog(&mut self) -> usize {
        self.0.outbox.borrow().len()
    }

    fn peer(&self) -> Option<String> {
        None
    }

    fn number(&self) -> i32 {
        0
    }
}
