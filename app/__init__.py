"""Millrace: takes transactions in, keeps every one it acknowledged, and answers exact statistics."""
