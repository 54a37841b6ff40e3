"""Fine-tuning: tasks and their scores, data and its splits, the input pipeline.

The data's side, in the order of use::

    data = load_task("movie-reviews", tokenizer, split="train", max_length=128)  # TaskData
    stream = make_stream(data, batch_size=32, seed=0)  # batch_size of all processes together
    batch = next(stream)  # TrainBatch of numpy leaves
    state = stream.get_state()  # JSON-able; the same for every process
    stream.set_state(state)  # goes on with the very next batch
    scores = data.scores()  # one more for each pass over the validation split
    scores.update(outputs, batch)  # outputs by kind, see `scores`
    scores.result()["accuracy"]
"""
