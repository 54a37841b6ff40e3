"""Fine-tuning: tasks and their scores, data and its splits, the input pipeline, the step, the loop, checkpoints.

From a task to its scores, in the order of use::

    data = load_task("movie-reviews", tokenizer, split="train", max_length=128)  # data.catalogue; a TaskData
    stream = make_stream(data, batch_size=32, seed=0)  # data.pipeline; batch_size of all processes together
    batch = next(stream)  # TrainBatch of numpy leaves
    state = stream.get_state()  # JSON-able; the same for every process
    stream.set_state(state)  # continues with the very next batch
    scores = make_scores(data)  # evaluate; one for each pass over the validation split
    scores.update(outputs, batch)  # outputs by kind, see objectives.scores
    scores.result()["accuracy"]
"""
