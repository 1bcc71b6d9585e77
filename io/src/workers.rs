//! A fixed pool of threads for cryptography.
//!
//! Jobs run by priority, first come first served within one. Background jobs have threads of their own, one fewer than
//! there are workers (but one), at low priority of the operating system, so a client never waits for them. Presigning has
//! one more: it is as patient, but its rounds must not each wait until a safe prime is found. A thread runs one job at a
//! time, so there is never more than one heavy job per worker. Each job gets 32 fresh bytes of the machine's entropy. A
//! job that panics is a bug: the node is stopped with the job's label.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use mpcium_core::{
    Input,
    protocol::{Job, Priority},
};
use zeroize::Zeroize as _;

use crate::ports::{Inbox, Workers};

/// How much background work steps back on the processor (0 to 19): it gets a few hundredths of a processor that others
/// want, and all of one that nobody wants.
const BACKGROUND_NICENESS: i32 = 15;

/// What a thread may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    /// Jobs that a client waits for.
    Foreground,
    /// Presigning, at low priority.
    Presigning,
    /// Background jobs, at low priority.
    Background,
}

impl Duty {
    fn of(priority: Priority) -> Self {
        match priority {
            Priority::Signing | Priority::Keygen => Self::Foreground,
            Priority::Presigning => Self::Presigning,
            Priority::Background => Self::Background,
        }
    }
}

/// The pool. Dropping it forgets the jobs that have not started and waits for those that run.
#[derive(Debug)]
pub struct WorkerPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is something for a thread of this duty, or the pool closes. One each: a job wakes exactly one thread that
    /// may run it.
    foreground: Condvar,
    presigning: Condvar,
    background: Condvar,
}

/// What waits and what runs.
#[derive(Debug)]
struct Queue {
    /// By priority, so that what goes first stands first.
    jobs: BTreeMap<Priority, VecDeque<Job>>,
    closed: bool,
}

impl Queue {
    /// The next job that a thread of this duty may start now.
    fn next(&mut self, duty: Duty) -> Option<Job> {
        let mut jobs = self.jobs.iter_mut().filter(|(priority, _)| Duty::of(**priority) == duty);
        jobs.find_map(|(_, jobs)| jobs.pop_front())
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing that can panic runs under the lock except on a broken invariant, and then the node stops.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, duty: Duty) -> &Condvar {
        match duty {
            Duty::Foreground => &self.foreground,
            Duty::Presigning => &self.presigning,
            Duty::Background => &self.background,
        }
    }
}

impl WorkerPool {
    /// Starts `workers` threads for what clients wait for, beside them one less (but at least one) for background jobs,
    /// and one for presigning. A thread that has stepped back cannot step forward again, so background work needs threads
    /// of its own.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub fn start(workers: NonZeroUsize, inbox: &Inbox) -> io::Result<Self> {
        let workers = workers.get();
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue { jobs: BTreeMap::new(), closed: false }),
            foreground: Condvar::new(),
            presigning: Condvar::new(),
            background: Condvar::new(),
        });
        let background = (workers - 1).max(1);
        let duties = std::iter::repeat_n(Duty::Foreground, workers)
            .chain(std::iter::repeat_n(Duty::Background, background))
            .chain([Duty::Presigning]);
        // Dropped on an error, it ends the threads that did start.
        let mut pool = Self { shared, threads: Vec::with_capacity(workers + background + 1) };
        for (number, duty) in duties.enumerate() {
            let (shared, inbox) = (pool.shared.clone(), inbox.clone());
            let thread = std::thread::Builder::new().name(format!("worker {number}"));
            pool.threads.push(thread.spawn(move || work(&shared, duty, &inbox))?);
        }
        Ok(pool)
    }

    /// Forgets the jobs that have not started and waits for those that run.
    pub fn shut_down(self) {
        drop(self);
    }

    /// Forgets the jobs that have not started and waits for nothing: a job that runs may take a minute, ends by itself,
    /// and nobody hears of it.
    pub fn abandon(mut self) {
        self.close();
        self.threads.clear();
    }

    fn close(&self) {
        {
            let mut queue = self.shared.queue();
            queue.closed = true;
            queue.jobs.clear();
        }
        self.shared.foreground.notify_all();
        self.shared.presigning.notify_all();
        self.shared.background.notify_all();
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.close();
        for thread in self.threads.drain(..) {
            // A job's panic was caught and reported.
            let _ = thread.join();
        }
    }
}

impl Workers for WorkerPool {
    fn submit(&self, job: Job) {
        let mut queue = self.shared.queue();
        if queue.closed {
            return;
        }
        let duty = Duty::of(job.priority);
        queue.jobs.entry(job.priority).or_default().push_back(job);
        drop(queue);
        self.shared.changed(duty).notify_one();
    }
}

/// One thread's life.
fn work(shared: &Shared, duty: Duty, inbox: &Inbox) {
    if duty != Duty::Foreground {
        // Linux keeps this per thread. Refused: the work is done all the same, only less politely.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), BACKGROUND_NICENESS);
    }
    loop {
        let job = {
            let mut queue = shared.queue();
            loop {
                if queue.closed {
                    return;
                }
                if let Some(job) = queue.next(duty) {
                    break job;
                }
                queue = shared.changed(duty).wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        };
        run(job, inbox);
    }
}

/// Runs one job and hands in what came of it.
fn run(job: Job, inbox: &Inbox) {
    let label = job.label;
    let mut entropy = [0; 32];
    if let Err(error) = getrandom::fill(&mut entropy) {
        inbox.fatal(format!("the machine gives no randomness for a job ({label}): {error}"));
        return;
    }
    match catch_unwind(AssertUnwindSafe(|| job.run(entropy))) {
        Ok(computed) => inbox.put(Input::Computed(computed)),
        Err(_) => inbox.fatal(format!("a job panicked: {label}")),
    }
    entropy.zeroize();
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::executor::block_on;
    use mpcium_core::{
        Secret,
        protocol::{Done, JobId, Work},
    };

    use super::*;
    use crate::ports::{Event, Events};

    fn job(id: u64, priority: Priority, work: Work) -> Job {
        Job { id: JobId(id), priority, label: "test", heavy: false, work }
    }

    fn plain(id: u64, priority: Priority) -> Job {
        job(id, priority, Box::new(|entropy| Done::Piece(Secret::new(entropy.to_vec()))))
    }

    fn computed(events: &mut Events) -> (u64, Vec<u8>) {
        match block_on(events.next()) {
            Some(Event::Input(Input::Computed(computed))) => match computed.done {
                Done::Piece(piece) => (computed.id.0, piece.expose().to_vec()),
                other => panic!("expected a piece, got {other:?}"),
            },
            other => panic!("expected a computed job, got {other:?}"),
        }
    }

    fn pool(workers: usize) -> (WorkerPool, Events) {
        let (inbox, events) = Inbox::new();
        let workers = NonZeroUsize::new(workers).expect("not zero");
        (WorkerPool::start(workers, &inbox).expect("threads"), events)
    }

    /// A job that says that it runs and then waits to be let go.
    fn held(id: u64, priority: Priority) -> (Job, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (started, has_started) = mpsc::channel();
        let (let_go, gate) = mpsc::channel();
        let work: Work = Box::new(move |_| {
            started.send(()).expect("the test listens");
            gate.recv().expect("the test lets go");
            Done::Piece(Secret::new(Vec::new()))
        });
        (job(id, priority, work), has_started, let_go)
    }

    #[test]
    fn signatures_go_before_keys_and_first_come_is_first_served() {
        let (pool, mut events) = pool(1);
        let (blocker, has_started, let_go) = held(0, Priority::Signing);
        pool.submit(blocker);
        has_started.recv().expect("it runs");
        for (id, priority) in
            [(1, Priority::Keygen), (2, Priority::Signing), (3, Priority::Keygen), (4, Priority::Signing)]
        {
            pool.submit(plain(id, priority));
        }
        let_go.send(()).expect("it waits");
        let order: Vec<u64> = (0..5).map(|_| computed(&mut events).0).collect();
        assert_eq!(order, [0, 2, 4, 1, 3]);
    }

    #[test]
    fn background_work_never_takes_the_last_thread() {
        for workers in [1, 2, 3] {
            let (pool, mut events) = pool(workers);
            let mut gates = Vec::new();
            let running = (workers - 1).max(1);
            for id in 0..8 {
                let (job, has_started, let_go) = held(id, Priority::Background);
                pool.submit(job);
                gates.push((has_started, let_go));
            }
            for (has_started, _) in &gates[..running] {
                has_started.recv().expect("it runs");
            }
            pool.submit(plain(100, Priority::Signing));
            assert_eq!(computed(&mut events).0, 100, "{workers} workers");
            for (has_started, _) in &gates[running..] {
                assert!(has_started.try_recv().is_err(), "{workers} workers: more background jobs than allowed run");
            }
            gates.iter().for_each(|(_, let_go)| let_go.send(()).expect("it waits"));
            let mut done: Vec<u64> = gates.iter().map(|_| computed(&mut events).0).collect();
            done.sort_unstable();
            assert_eq!(done, (0..8).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn background_work_steps_back_whatever_the_number_of_workers() {
        for workers in [1, 2, 4] {
            let (pool, mut events) = pool(workers);
            let niceness = || -> Work {
                Box::new(|_| {
                    let own = rustix::process::getpriority_process(Some(rustix::thread::gettid())).expect("a priority");
                    Done::Piece(Secret::new(own.to_be_bytes().to_vec()))
                })
            };
            pool.submit(job(1, Priority::Background, niceness()));
            let (_, background) = computed(&mut events);
            pool.submit(job(2, Priority::Signing, niceness()));
            let (_, foreground) = computed(&mut events);
            let number = |bytes: Vec<u8>| i32::from_be_bytes(bytes.try_into().expect("four bytes"));
            let (background, foreground) = (number(background), number(foreground));
            let own = rustix::process::getpriority_process(Some(rustix::thread::gettid())).expect("a priority");
            assert!(background >= BACKGROUND_NICENESS && foreground == own, "{foreground}, {background}, {own}");
        }
    }

    #[test]
    fn every_job_gets_other_entropy() {
        let (pool, mut events) = pool(2);
        (0..50).for_each(|id| pool.submit(plain(id, Priority::Signing)));
        let drawn: std::collections::BTreeSet<_> = (0..50).map(|_| computed(&mut events).1).collect();
        assert_eq!(drawn.len(), 50);
    }

    #[test]
    fn a_panicking_job_stops_the_node_and_names_itself() {
        let (pool, mut events) = pool(1);
        pool.submit(job(1, Priority::Signing, Box::new(|_| panic!("broken invariant"))));
        match block_on(events.next()) {
            Some(Event::Fatal(reason)) => assert_eq!(reason, "a job panicked: test"),
            other => panic!("expected the end, got {other:?}"),
        }
        pool.shut_down();
    }

    #[test]
    fn abandoning_waits_for_nothing() {
        let (pool, _events) = pool(1);
        let (blocker, has_started, let_go) = held(0, Priority::Signing);
        pool.submit(blocker);
        has_started.recv().expect("it runs");
        // Would never return if it waited for the job.
        pool.abandon();
        let_go.send(()).expect("it waits");
    }

    #[test]
    fn shutting_down_waits_for_what_runs_and_forgets_what_waits() {
        let (pool, mut events) = pool(1);
        let (blocker, has_started, let_go) = held(0, Priority::Signing);
        pool.submit(blocker);
        has_started.recv().expect("it runs");
        pool.submit(plain(1, Priority::Signing));
        let closing = std::thread::spawn(move || pool.shut_down());
        let_go.send(()).expect("it waits");
        closing.join().expect("closed");
        let mut left = Vec::new();
        while let Some(event) = block_on(events.next()) {
            left.push(event);
        }
        // The second may have started before the pool was told to close, never after.
        assert!(matches!(left.len(), 1 | 2), "{left:?}");
    }
}
