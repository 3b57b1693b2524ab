"""Chats that ask no model: graded truth, scripted replies, and a recording played again."""
