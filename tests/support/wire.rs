//! A wire between a function and PostgreSQL that counts the statements on it, and can be slow, silent or cut.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// What befalls the answer to a statement.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// It comes late.
    Late(Duration),
    /// An error with this SQLSTATE comes in its place, and the end of the connection, as a pooler has it.
    Instead(&'static str),
    /// It is lost with the connection: the statement was executed, and its client does not know.
    Cut,
    /// It comes, and it is the last that does: from then on the wire is a [`Mode::BlackHole`].
    NothingAfter,
}

/// How the whole wire behaves from now on. What is swallowed never arrives, and its connection stays dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As it should.
    Through,
    /// Connections are taken, and whatever is sent is swallowed, also on those that are open.
    BlackHole,
    /// The peer of every open connection is gone without a word; new ones get through.
    HalfOpen,
    /// Requests arrive, and answers are swallowed.
    Mute,
    /// Statements arrive without their end: they are done, and neither committed nor answered.
    HalfSent,
    /// Nothing moves; all of it arrives once this is over.
    Jam,
    /// Answers come byte by byte, with this pause before each.
    Drip(Duration),
    /// The last message of each answer comes this much after the others.
    LateEnd(Duration),
    /// The server asks for the password, and never says what it thinks of it.
    NoLogin,
}

/// Forwards to the server of a URL. Counts what is executed, and what is prepared under a name.
pub struct Wire {
    pub url: String,
    state: Arc<State>,
}

/// What all connections of a wire have in common.
struct State {
    executed: AtomicUsize,
    named: AtomicUsize,
    rows: AtomicUsize,
    early: AtomicUsize,
    fault: Mutex<Planned>,
    /// The mode, and how many there were before it.
    mode: watch::Sender<(Mode, usize)>,
}

/// The fault that the next statement of that name arms, and the one that awaits its answer.
#[derive(Default)]
struct Planned {
    on: Option<(&'static str, Fault)>,
    armed: Option<Fault>,
}

impl Wire {
    pub async fn to(url: &str) -> Self {
        let (before, rest) = url.split_once('@').expect("user@host");
        let (server, database) = rest.split_once('/').expect("host/database");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("{before}@{}/{database}", listener.local_addr().expect("an address"));
        let state = Arc::new(State {
            executed: AtomicUsize::default(),
            named: AtomicUsize::default(),
            rows: AtomicUsize::default(),
            early: AtomicUsize::default(),
            fault: Mutex::default(),
            mode: watch::Sender::new((Mode::Through, 0)),
        });
        let wire = Self { url, state: Arc::clone(&state) };
        let server = server.to_owned();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // Single bytes go out at once.
                client.set_nodelay(true).expect("a TCP socket");
                let upstream = TcpStream::connect(&server).await.expect("PostgreSQL");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = upstream.into_split();
                let state = Arc::clone(&state);
                let born = state.mode.borrow().1;
                tokio::spawn(async move {
                    // Questions whose answer has not come to its end.
                    let open = AtomicUsize::default();
                    tokio::select! {
                        _ = answer(from_server, to_client, &state, born, &open) => {}
                        _ = count(from_client, to_server, &state, born, &open) => {}
                    }
                });
            }
        });
        wire
    }

    /// Statements executed since the last call.
    pub fn executed(&self) -> usize {
        self.state.executed.swap(0, Ordering::SeqCst)
    }

    /// Bytes of the rows answered since the last call.
    pub fn rows(&self) -> usize {
        self.state.rows.swap(0, Ordering::SeqCst)
    }

    /// Statements that were sent before the answer to the one before them had come to its end, ever.
    pub fn early(&self) -> usize {
        self.state.early.load(Ordering::SeqCst)
    }

    /// Statements prepared under a name, ever.
    pub fn named(&self) -> usize {
        self.state.named.load(Ordering::SeqCst)
    }

    /// Plans what befalls the answer to the next statement with this header, such as `-- claim`.
    pub fn fault(&self, on: &'static str, fault: Fault) {
        self.state.fault.lock().unwrap().on = Some((on, fault));
    }

    /// Changes how the wire behaves, for open connections and new ones.
    pub fn set(&self, mode: Mode) {
        self.state.mode.send_modify(|(current, count)| (*current, *count) = (mode, *count + 1));
    }
}

impl State {
    /// The mode, once something moves.
    async fn mode(&self) -> (Mode, usize) {
        let mut mode = self.mode.subscribe();
        *mode.wait_for(|(mode, _)| *mode != Mode::Jam).await.expect("the wire is there")
    }

    /// Whether a request gets through on a connection from the time of that many modes.
    async fn carries_request(&self, born: usize, kind: u8) -> bool {
        match self.mode().await {
            (Mode::BlackHole, _) => false,
            (Mode::HalfSent, _) => kind != b'S',
            (Mode::HalfOpen, since) => born >= since,
            _ => true,
        }
    }

    /// Whether an answer does.
    async fn carries_answer(&self, born: usize, kind: u8, message: &[u8]) -> bool {
        let challenge = [0, 0, 0, 10];
        match self.mode().await {
            (Mode::BlackHole | Mode::Mute, _) => false,
            (Mode::HalfOpen, since) => born >= since,
            (Mode::NoLogin, _) => kind != b'R' || message.starts_with(&challenge),
            _ => true,
        }
    }
}

/// Takes what comes until the sender is gone.
async fn swallow(from: &mut OwnedReadHalf) -> std::io::Result<()> {
    tokio::io::copy(from, &mut tokio::io::sink()).await.map(drop)
}

/// Backend messages: a type byte and a length that counts itself. An end of either direction ends both.
async fn answer(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    born: usize,
    open: &AtomicUsize,
) -> std::io::Result<()> {
    let mut nothing_after = false;
    loop {
        let kind = from.read_u8().await?;
        let length = from.read_u32().await?;
        let mut message = vec![0; length as usize - 4];
        from.read_exact(&mut message).await?;
        if kind == b'D' {
            state.rows.fetch_add(message.len(), Ordering::SeqCst);
        }
        let armed = state.fault.lock().unwrap().armed.take();
        match armed {
            Some(Fault::Late(delay)) => tokio::time::sleep(delay).await,
            Some(Fault::Cut) => return Ok(()),
            Some(Fault::NothingAfter) => nothing_after = true,
            Some(Fault::Instead(code)) => {
                let fields = format!("SFATAL\0VFATAL\0C{code}\0Mserver conn crashed?\0\0");
                to.write_u8(b'E').await?;
                to.write_u32(4 + u32::try_from(fields.len()).unwrap()).await?;
                return to.write_all(fields.as_bytes()).await;
            }
            None => {}
        }
        if !state.carries_answer(born, kind, &message).await {
            return swallow(&mut from).await;
        }
        if kind == b'Z' {
            if let (Mode::LateEnd(by), _) = state.mode().await {
                tokio::time::sleep(by).await;
            }
            open.store(0, Ordering::SeqCst);
        }
        message.splice(..0, [&[kind], length.to_be_bytes().as_slice()].concat());
        let mut rest = message.as_slice();
        while let ((Mode::Drip(pause), _), [byte, more @ ..]) = (state.mode().await, rest) {
            tokio::time::sleep(pause).await;
            to.write_u8(*byte).await?;
            rest = more;
        }
        to.write_all(rest).await?;
        // The server is ready for the next statement, which it will never hear.
        if nothing_after && kind == b'Z' {
            state.mode.send_modify(|(mode, count)| (*mode, *count) = (Mode::BlackHole, *count + 1));
        }
    }
}

/// Frontend messages: a start-up packet without a type, then a type byte and a length that counts itself.
async fn count(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    born: usize,
    open: &AtomicUsize,
) -> std::io::Result<()> {
    let length = from.read_u32().await?;
    let mut startup = vec![0; length as usize - 4];
    from.read_exact(&mut startup).await?;
    if !state.carries_request(born, 0).await {
        return swallow(&mut from).await;
    }
    // Each in one piece: until a client is let in, PgBouncer takes it for broken otherwise.
    to.write_all(&[length.to_be_bytes().as_slice(), &startup].concat()).await?;
    loop {
        let kind = from.read_u8().await?;
        let length = from.read_u32().await?;
        let mut body = vec![0; length as usize - 4];
        from.read_exact(&mut body).await?;
        match kind {
            b'E' | b'Q' => state.executed.fetch_add(1, Ordering::SeqCst),
            b'P' if body.first() != Some(&0) => state.named.fetch_add(1, Ordering::SeqCst),
            _ => 0,
        };
        if matches!(kind, b'P' | b'Q') {
            state.early.fetch_add(open.swap(1, Ordering::SeqCst), Ordering::SeqCst);
        }
        if kind == b'P' {
            let mut fault = state.fault.lock().unwrap();
            if let Some((_, due)) = fault.on.take_if(|(on, _)| String::from_utf8_lossy(&body).contains(*on)) {
                fault.armed = Some(due);
            }
        }
        if !state.carries_request(born, kind).await {
            return swallow(&mut from).await;
        }
        to.write_all(&[&[kind], length.to_be_bytes().as_slice(), &body].concat()).await?;
    }
}
