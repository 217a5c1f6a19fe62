//! An engine on a thread of its own, and the handle by which any thread asks it: what a server stands on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use phyla_data::tokenizer::Tokenizer;
use phyla_models::Model;

use super::adapters::NamedAdapter;
use super::request::{Job, Sink};
use super::{Engine, EngineConfig, Request, RequestId, Stats, Update};
use crate::{Error, Generator, Result};

/// What an engine answers with.
#[derive(Clone, Debug)]
pub struct Served {
    /// The model.
    pub model: Arc<Model>,
    /// Without one there are ids but no text, and no stop strings.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// See [`Generator::assisted_by`].
    pub assistant: Option<Arc<Model>>,
    /// See [`Generator::with_adapters`].
    pub adapters: Vec<NamedAdapter>,
}

impl Served {
    /// What answers a single call alike.
    pub fn generator(&self) -> Generator<'_> {
        let generator = Generator::new(&self.model, self.tokenizer.as_deref()).with_adapters(&self.adapters);
        match self.assistant.as_deref() {
            Some(assistant) => generator.assisted_by(assistant),
            None => generator,
        }
    }
}

/// Asks an engine that runs on a thread of its own; can be shared between threads. When it is dropped everything ends.
#[derive(Debug)]
pub struct Handle {
    served: Served,
    config: EngineConfig,
    blocks: usize,
    post: Mutex<Post>,
    running: Arc<Running>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The way to the engine; there is none after the end was announced.
#[derive(Debug)]
struct Post {
    next: RequestId,
    to: Option<Sender<Message>>,
}

enum Message {
    Submit(RequestId, Box<Job>, SentSink),
    /// Something has been cancelled.
    Wake,
    Clear,
    Stats(Sender<Stats>),
}

/// A sink that goes to the engine's thread.
type SentSink = Box<dyn FnMut(Update) + Send>;

/// What can be cancelled.
#[derive(Debug, Default)]
struct Running {
    requests: Mutex<HashMap<RequestId, Arc<AtomicBool>>>,
}

impl Engine<'_> {
    /// Starts an engine on a thread of its own.
    ///
    /// # Errors
    /// As [`Engine::new`]; the system has no thread to give.
    pub fn start(served: Served, config: EngineConfig) -> Result<Handle> {
        let blocks = Engine::new(served.generator(), config)?.blocks.total();
        let (to, inbox) = channel();
        let (running, own) = (Arc::<Running>::default(), served.clone());
        let serve = move || {
            // It was made once already.
            if let Ok(engine) = Engine::new(own.generator(), config) {
                serve(engine, &inbox);
            }
        };
        let thread = std::thread::Builder::new().name("engine".into()).spawn(serve);
        let thread = thread.map_err(|error| Error::Engine(format!("the engine cannot start: {error}")))?;
        let (post, thread) = (Mutex::new(Post { next: 0, to: Some(to) }), Mutex::new(Some(thread)));
        Ok(Handle { served, config, blocks, post, running, thread })
    }
}

impl Handle {
    /// Hands a request over; its `sink` is called on the engine's thread, and should be quick.
    ///
    /// # Errors
    /// As [`Engine::submit`]; when the engine has been told to end.
    pub fn submit(&self, request: Request, sink: impl FnMut(Update) + Send + 'static) -> Result<RequestId> {
        let job = Job::new(&self.served.generator(), &self.config, self.blocks, request)?;
        // Numbers are in the order in which requests arrive.
        let mut post = lock(&self.post);
        let (id, Some(to)) = (post.next, &post.to) else { return Err(ended()) };
        lock(&self.running.requests).insert(id, job.cancel.clone());
        let (running, mut sink) = (self.running.clone(), sink);
        let sink = move |update: Update| {
            if matches!(update, Update::Done(_)) {
                lock(&running.requests).remove(&id);
            }
            sink(update);
        };
        to.send(Message::Submit(id, Box::new(job), Box::new(sink))).map_err(|_| ended())?;
        post.next += 1;
        Ok(id)
    }

    /// Ends a request as soon as the step that runs is over; nothing if it has ended.
    pub fn cancel(&self, id: RequestId) {
        if let Some(cancel) = lock(&self.running.requests).get(&id) {
            cancel.store(true, Ordering::Relaxed);
        }
        self.send(Message::Wake);
    }

    /// Forgets what is kept for requests that begin alike.
    pub fn clear_prefixes(&self) {
        self.send(Message::Clear);
    }

    /// What the engine is doing and has done.
    ///
    /// # Errors
    /// When it has ended.
    pub fn stats(&self) -> Result<Stats> {
        let (to, stats) = channel();
        self.send(Message::Stats(to));
        stats.recv().map_err(|_| ended())
    }

    /// Takes no more requests, and returns when all are answered.
    pub fn finish(&self) {
        lock(&self.post).to = None;
        let thread = lock(&self.thread).take();
        // A thread that panicked has said so.
        thread.map(JoinHandle::join);
    }

    /// Takes no more requests, cancels all, and returns when each has been told.
    pub fn shutdown(&self) {
        let mut post = lock(&self.post);
        post.to = None;
        lock(&self.running.requests).values().for_each(|cancel| cancel.store(true, Ordering::Relaxed));
        drop(post);
        self.finish();
    }

    fn send(&self, message: Message) {
        if let Some(to) = &lock(&self.post).to {
            to.send(message).ok();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn ended() -> Error {
    Error::Engine("the engine has been shut down, and takes no more requests".into())
}

/// Nothing is half done while a lock of this module is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Steps until the handle is gone and all is answered.
fn serve(mut engine: Engine, inbox: &Receiver<Message>) {
    let mut open = true;
    loop {
        if engine.is_idle() {
            if !open {
                break;
            }
            // Without work there is nothing to do but wait.
            match inbox.recv() {
                Ok(message) => take(&mut engine, message),
                Err(_) => break,
            }
        }
        loop {
            match inbox.try_recv() {
                Ok(message) => take(&mut engine, message),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    open = false;
                    break;
                }
            }
        }
        if let Err(error) = engine.step() {
            engine.abandon(&error);
        }
    }
}

fn take(engine: &mut Engine, message: Message) {
    match message {
        Message::Submit(id, job, sink) => {
            let sink: Sink = sink;
            engine.enter(id, *job, sink);
        }
        Message::Wake => {}
        Message::Clear => engine.clear_prefixes(),
        // Who asked may have gone.
        Message::Stats(to) => to.send(engine.stats()).unwrap_or(()),
    }
}
