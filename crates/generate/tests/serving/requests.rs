//! Requests of every kind: refused, searched, one after the other, out of time, and from other threads.

use super::*;

#[test]
fn what_cannot_be_done_is_refused_at_once() {
    let model = model(json!({}));
    let generator = Generator::new(&model, None);
    let mut engine = Engine::new(generator, small(4)).unwrap();
    let ask = |engine: &mut Engine, prompt: Vec<u32>, config: GenerationConfig| {
        engine
            .submit(Request { prompt, config, seed: 0, ..Request::default() }, |_| {
                unreachable!("told of a refused request")
            })
            .map_err(|e| e.to_string())
    };
    for (prompt, config, error) in [
        (vec![], sampling(3), "prompt 0 is empty"),
        (vec![999], sampling(3), "token id 999 is outside the vocabulary"),
        (vec![1; 250], sampling(8), "250 tokens and 8 new ones need 5 blocks of 64 positions, and the engine has 4"),
        (
            vec![1],
            GenerationConfig { max_new_tokens: Some(0), ..Default::default() },
            "max_new_tokens must be at least 1",
        ),
        (
            vec![1],
            GenerationConfig { num_return_sequences: Some(13), ..sampling(3) },
            "runs 12 at a time (max_num_seqs)",
        ),
        (vec![1], GenerationConfig { stop_strings: Some(vec!["a".into()]), ..sampling(3) }, "needs a tokenizer"),
        (
            vec![1],
            GenerationConfig { num_beams: Some(9), max_new_tokens: Some(60), ..Default::default() },
            "need 17 blocks",
        ),
    ] {
        let found = ask(&mut engine, prompt, config).unwrap_err();
        assert!(found.contains(error), "{found}");
    }
    assert!(!engine.step().unwrap() && engine.is_idle() && engine.stats().submitted == 0);
    assert!(!engine.cancel(7).unwrap());
    for (config, error) in [
        (EngineConfig { max_num_seqs: 0, ..small(4) }, "max_num_seqs"),
        (EngineConfig { max_num_batched_tokens: 0, ..small(4) }, "max_num_batched_tokens"),
        (small(0), "blocks"),
        (EngineConfig { memory: Memory::Bytes(100), ..small(4) }, "blocks"),
    ] {
        let found = Engine::new(generator, config).unwrap_err().to_string();
        assert!(found.contains(error), "{found}");
    }
    // What just fits runs.
    engine
        .submit(Request { prompt: vec![1; 250], config: sampling(7), seed: 0, ..Request::default() }, |_| {})
        .unwrap();
    engine.run().unwrap();
    assert_eq!((engine.stats().finished, engine.blocks_in_use()), (1, 0));
}

#[test]
fn searches_and_guesses_are_answered_too() {
    let model = model(json!({}));
    let assistant = self::model(json!({ "num_hidden_layers": 1 }));
    let beams = GenerationConfig { num_beams: Some(3), num_return_sequences: Some(2), ..GenerationConfig::default() };
    let greedy = GenerationConfig { max_new_tokens: Some(20), ..Default::default() };
    let configs = [
        sampling(25),
        GenerationConfig { max_new_tokens: Some(15), ..beams },
        sampling(9),
        GenerationConfig { penalty_alpha: Some(0.5), top_k: Some(4), ..greedy.clone() },
        GenerationConfig { prompt_lookup_num_tokens: Some(5), ..greedy.clone() },
        sampling(12),
        GenerationConfig { cache_dtype: "f16".parse().ok(), ..sampling(12) },
        GenerationConfig { output_hidden_states: Some(true), ..sampling(12) },
        GenerationConfig { cache_implementation: "static".parse().ok(), ..sampling(12) },
    ];
    for assisted in [false, true] {
        let generator = Generator::new(&model, None);
        let generator = if assisted { generator.assisted_by(&assistant) } else { generator };
        let mut engine = Engine::new(generator, small(20)).unwrap();
        let mut told = vec![];
        for (i, config) in configs.iter().enumerate().filter(|(i, _)| !assisted || [0, 2, 4, 5].contains(i)) {
            let (heard, request) = (
                Rc::<RefCell<Heard>>::default(),
                Request { prompt: prompt(0, 40 + i, i as u32), config: config.clone(), seed: 2, ..Request::default() },
            );
            let own = heard.clone();
            engine.submit(request.clone(), move |update| own.borrow_mut().hear(update)).unwrap();
            let made = generator.generate(&[request.prompt], config, 2, &mut |_| {}).unwrap();
            told.push((heard, made.sequences));
        }
        let unwanted = configs[if assisted { 4 } else { 1 }].clone();
        let unwanted = engine
            .submit(Request { prompt: vec![5], config: unwanted, seed: 0, ..Request::default() }, |_| {})
            .unwrap();
        engine.step().unwrap();
        assert!(engine.cancel(unwanted).unwrap());
        engine.run().unwrap();
        for (heard, alone) in told {
            assert_eq!(heard.borrow().answer().sequences, alone);
        }
        assert_eq!((engine.stats().cancelled, engine.blocks_in_use()), (1, 0));
    }
}

#[test]
fn an_encoder_decoder_answers_one_request_after_the_other() {
    let config = json!({
        "model_type": "t5", "vocab_size": 90, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
        "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0
    });
    let model = fresh(config.as_object().unwrap(), 3, &Device::Cpu).unwrap();
    let generator = Generator::new(&model, None);
    let mut engine = Engine::new(generator, small(20)).unwrap();
    let heard: Vec<Rc<RefCell<Heard>>> = (0..4).map(|_| Rc::default()).collect();
    let request = |i: usize| Request {
        prompt: (2..20 + i as u32).collect(),
        config: sampling(12),
        seed: i as u64,
        ..Request::default()
    };
    for (i, heard) in heard.iter().cloned().enumerate() {
        engine.submit(request(i), move |update| heard.borrow_mut().hear(update)).unwrap();
    }
    engine.run().unwrap();
    for (i, heard) in heard.iter().enumerate() {
        assert_eq!(heard.borrow().answer().sequences, alone(&model, &request(i)));
    }
}

#[test]
fn time_that_is_over_ends_a_request_with_what_it_has() {
    let model = model(json!({}));
    let mut engine = Engine::new(Generator::new(&model, None), small(60)).unwrap();
    let heard: Rc<RefCell<Heard>> = Rc::default();
    let told = heard.clone();
    let config = GenerationConfig { max_time: Some(0.), num_return_sequences: Some(3), ..sampling(50) };
    engine
        .submit(Request { prompt: vec![3; 300], config, seed: 0, ..Request::default() }, move |update| {
            told.borrow_mut().hear(update)
        })
        .unwrap();
    engine.run().unwrap();
    let heard = heard.borrow();
    let ends: Vec<_> = heard.answer().sequences.iter().map(|s| (s.ids.len(), s.finish_reason)).collect();
    assert_eq!(ends, [(1, FinishReason::Time); 3]);
    assert_eq!(engine.blocks_in_use(), 0);
}

#[test]
fn an_engine_on_a_thread_is_asked_from_any() {
    let model = model(json!({}));
    let requests = requests(24, 8, 30, false);
    let alone: Vec<_> = requests.iter().map(|request| alone(&model, request)).collect();
    let served = Served { model: Arc::new(model), tokenizer: None, assistant: None, adapters: vec![] };
    let handle = Engine::start(served.clone(), small(40)).unwrap();
    let heard: Vec<Arc<Mutex<Heard>>> = requests.iter().map(|_| Arc::default()).collect();
    std::thread::scope(|scope| {
        for (requests, heard) in requests.chunks(6).zip(heard.chunks(6)) {
            let handle = &handle;
            scope.spawn(move || {
                for (request, heard) in requests.iter().zip(heard) {
                    let heard = heard.clone();
                    handle.submit(request.clone(), move |update| heard.lock().unwrap().hear(update)).unwrap();
                }
            });
        }
    });
    assert!(handle.submit(Request::default(), |_| {}).is_err());
    assert!(handle.stats().unwrap().submitted <= 24);
    handle.finish();
    for (heard, alone) in heard.iter().zip(&alone) {
        assert_eq!(&heard.lock().unwrap().answer().sequences, alone);
    }
    let late = handle.submit(requests[0].clone(), |_| {}).unwrap_err();
    assert!(late.to_string().contains("shut down") && handle.stats().is_err());
    handle.shutdown();

    // Everyone is told of the end, whatever was going on.
    let handle = Engine::start(served, small(40)).unwrap();
    let ends: Vec<Arc<Mutex<Heard>>> = requests.iter().map(|_| Arc::default()).collect();
    let long = sampling(2000);
    let mut ids = vec![];
    for (request, heard) in requests.iter().zip(&ends) {
        let (heard, request) = (
            heard.clone(),
            Request { prompt: request.prompt[..1].to_vec(), config: long.clone(), seed: 1, ..Request::default() },
        );
        ids.push(handle.submit(request, move |update| heard.lock().unwrap().hear(update)).unwrap());
    }
    handle.cancel(ids[0]);
    handle.cancel(10_000);
    while ends[0].lock().unwrap().done.is_none() {
        std::thread::yield_now();
    }
    handle.shutdown();
    for heard in &ends {
        let heard = heard.lock().unwrap();
        assert_eq!(heard.answer().sequences[0].finish_reason, FinishReason::Cancelled);
    }
}
