//! What an engine holds: blocks that are few, shared and counted, and none when all is done.

use super::*;

#[test]
fn tiny_memories_and_hostile_orders_leave_nothing_behind() {
    let model =
        model(json!({ "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 1 }));
    let mut preempted = 0;
    for seed in 0..12 {
        let mut rng = Rng::new(seed).split("memory");
        let mut requests = requests(40, seed, 90, false);
        if seed % 3 > 0 {
            // Short prompts and long answers, which crowd one another out.
            for request in &mut requests {
                request.prompt.truncate(1 + rng.below(60) as usize);
                request.config.max_new_tokens = Some(1 + rng.below(400) as usize);
            }
        }
        let config = EngineConfig {
            max_num_seqs: 4 + rng.below(20) as usize,
            max_num_batched_tokens: 1 + rng.below(600) as usize,
            memory: Memory::Blocks(if seed % 3 > 0 { 8 } else { 13 } + rng.below(9) as usize),
            share_prefixes: rng.below(3) > 0,
            ..Default::default()
        };
        let (heard, times) = run(&model, &requests, config, seed, seed % 2 == 0);
        preempted += times;
        for (heard, request) in heard.iter().zip(&requests) {
            for (sequence, alone) in heard.answer().sequences.iter().zip(alone(&model, request)) {
                match sequence.finish_reason {
                    FinishReason::Cancelled => assert_eq!(sequence.ids, alone.ids[..sequence.ids.len()], "seed {seed}"),
                    _ => assert_eq!(sequence, &alone, "seed {seed}"),
                }
            }
        }
    }
    assert!(preempted > 100, "{preempted} preempted");
}

#[test]
fn without_sharing_the_blocks_counted_are_the_bytes_held() {
    let f32s = model(json!({}));
    let bf16s = bf16(&f32s);
    let kept = Some(CacheDtype("f16".parse::<CacheDtype>().unwrap().0));
    for (model, cache_dtype) in [(&f32s, None), (&bf16s, None), (&f32s, kept)] {
        let config = EngineConfig { share_prefixes: false, cache_dtype, ..small(100) };
        let mut engine = Engine::new(Generator::new(model, None), config).unwrap();
        for request in requests(8, 1, 30, false) {
            engine.submit(request, |_| {}).unwrap();
        }
        let mut steady = 0;
        let mut before = engine.stats();
        while engine.step().unwrap() {
            let stats = engine.stats();
            assert!(engine.cache_bytes() <= stats.blocks.used * config.block_bytes(model));
            // Where nothing is read and nothing has come or gone, every block has been filled.
            if before.prompt_tokens == stats.prompt_tokens && before.running == stats.running && stats.waiting == 0 {
                assert_eq!(engine.cache_bytes(), stats.blocks.used * config.block_bytes(model));
                steady += 1;
            }
            before = stats;
        }
        assert!(steady > 3);
    }
}

#[test]
fn requests_that_begin_alike_share_blocks() {
    let model = model(json!({}));
    let mut engine = Engine::new(Generator::new(&model, None), small(60)).unwrap();
    let begin = prompt(0, 400, 0);
    let ask = |engine: &mut Engine, more: u32| {
        let heard: Rc<RefCell<Heard>> = Rc::default();
        let (told, prompt) = (heard.clone(), [&begin[..], &[more; 40]].concat());
        let request = Request { prompt: prompt.clone(), config: sampling(5), seed: 1, ..Request::default() };
        let alone = alone(&model, &request);
        // Nothing of the test's is borrowed by what an engine keeps.
        engine.submit(request, move |update| told.borrow_mut().hear(update)).unwrap();
        engine.run().unwrap();
        let heard = heard.borrow();
        assert_eq!(heard.answer().sequences, alone);
        heard.answer().timings
    };
    let (first, second) = (ask(&mut engine, 1), ask(&mut engine, 2));
    assert_eq!((first.read, first.shared), (440, 0));
    assert_eq!((second.read, second.shared), (440 - 384, 384));
    // The same once more, but for a last piece that must not be too small.
    let again = ask(&mut engine, 2);
    assert_eq!((again.read, again.shared), (440 - 384, 384));
    assert!(first.queued <= first.first_token && first.first_token <= first.total);
    let stats = engine.stats();
    assert_eq!((stats.shared_tokens, stats.blocks.used, stats.blocks.kept), (768, 0, 6));
    // Side by side each page is there once.
    for more in [3, 4] {
        let request =
            Request { prompt: [&begin[..], &[more; 40]].concat(), config: sampling(30), seed: 1, ..Request::default() };
        engine.submit(request, |_| {}).unwrap();
    }
    for _ in 0..4 {
        engine.step().unwrap();
    }
    let stats = engine.stats();
    assert_eq!((stats.running, stats.blocks.used, stats.blocks.shared), (2, 8, 6));
    assert_eq!(engine.cache_bytes(), 8 * small(60).block_bytes(&model));
    engine.run().unwrap();
    engine.clear_prefixes();
    assert_eq!((engine.stats().blocks.free, engine.blocks_in_use()), (60, 0));
    assert_eq!(ask(&mut engine, 2).shared, 0);
}
